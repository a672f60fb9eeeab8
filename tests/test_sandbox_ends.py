"""The sandbox: how calls, children, families, the forkserver and the worker end, and that nobody else notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fixtures_embedded import wait_for_end
from processes import all_ended, descendants, ended, numbers_in, until
from test_sandbox import WIDE, in_sandbox, target

from tasks.sandbox import Crashed, Limits, Result, Sandbox, TimedOut

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs what only the Linux kernel offers")


async def start_neighbour(sandbox: Sandbox, folder: Path) -> asyncio.Task[Result]:
    """A call that runs until finish_neighbour()."""
    call = sandbox.run(target("work_until"), str(folder / "began"), str(folder / "gate"), limits=WIDE)
    task = asyncio.create_task(call)
    await until(lambda: numbers_in(folder / "began"))
    return task


async def finish_neighbour(neighbour: asyncio.Task[Result], folder: Path) -> None:
    """See that it was neither stopped nor started again."""
    assert not neighbour.done()
    (folder / "gate").touch()
    result = await neighbour
    assert result.value == "undisturbed"
    assert numbers_in(folder / "began") == [result.child_pid]


@pytest.mark.parametrize("name", ["burn", "hang", "hang_deaf"])
def test_cancelling_kills_the_child_within_a_second_and_the_neighbour_does_not_notice(
    name: str, tmp_path: Path
) -> None:
    async def use(sandbox: Sandbox) -> None:
        neighbour = await start_neighbour(sandbox, tmp_path)
        running = asyncio.create_task(sandbox.run(target(name), str(tmp_path / "pid"), limits=WIDE))
        await until(lambda: numbers_in(tmp_path / "pid"))
        [pid] = numbers_in(tmp_path / "pid")
        running.cancel()
        assert await until(lambda: ended(pid)) < 1
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await sandbox.run(target("echo"), 1, limits=WIDE)).value == (1,)  # the slot is free
        await finish_neighbour(neighbour, tmp_path)

    in_sandbox(use, children=2)


@pytest.mark.parametrize(
    ("name", "args", "sign", "exit_code"),
    [("segfault", (), signal.SIGSEGV, None), ("leave", (3,), None, 3), ("leave_politely", (4,), None, 4)],
)
def test_a_crash_says_how_it_ended_and_the_neighbour_does_not_notice(
    name: str, args: tuple[int, ...], sign: int | None, exit_code: int | None, tmp_path: Path
) -> None:
    async def use(sandbox: Sandbox) -> None:
        neighbour = await start_neighbour(sandbox, tmp_path)
        for _ in range(3):
            with pytest.raises(Crashed) as caught:
                await sandbox.run(target(name), *args, limits=WIDE)
            assert (caught.value.signal, caught.value.exit_code) == (sign, exit_code)
            assert ended(caught.value.child_pid)
            assert ("segfault" in caught.value.detail) == (sign is not None)  # where it was
        await finish_neighbour(neighbour, tmp_path)

    in_sandbox(use, children=2)


def test_a_child_that_writes_nonsense_to_its_socket_costs_its_own_call(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        neighbour = await start_neighbour(sandbox, tmp_path)
        with pytest.raises(Crashed):
            await sandbox.run(target("scribble_over_sockets"), limits=WIDE)
        assert (await sandbox.run(target("echo"), 1, limits=WIDE)).value == (1,)
        await finish_neighbour(neighbour, tmp_path)

    in_sandbox(use, children=2)


def test_a_child_that_closes_its_socket_and_lives_on_is_killed(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        with pytest.raises(Crashed):
            await sandbox.run(target("close_everything"), str(tmp_path / "pid"), limits=WIDE)
        await until(lambda: all_ended(numbers_in(tmp_path / "pid")))

    in_sandbox(use)


def test_a_child_that_died_while_idle_is_replaced_without_anyone_noticing() -> None:
    async def use(sandbox: Sandbox) -> None:
        for _ in range(5):
            pid = (await sandbox.run(target("echo"), limits=WIDE)).child_pid
            os.kill(pid, signal.SIGKILL)  # the sandbox has had no time to hear of it
            assert (await sandbox.run(target("echo"), 1, limits=WIDE)).child_pid != pid

    in_sandbox(use)


def test_children_survive_the_sigterm_that_a_service_manager_sends_to_all() -> None:
    result = in_sandbox(lambda sandbox: sandbox.run(target("terminate_itself"), limits=WIDE))
    assert result.value == "still here"


@linux
def test_grandchildren_end_with_a_call_that_is_stopped(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        family = tmp_path / "family"
        with pytest.raises(TimedOut):
            await sandbox.run(target("start_family_and_hang"), str(family), limits=Limits(2, 5, WIDE.memory_bytes))
        assert len(numbers_in(family)) == 2
        await until(lambda: all_ended(numbers_in(family)))

    in_sandbox(use)


@linux
def test_grandchildren_end_with_a_call_that_returns_and_the_child_is_replaced(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        first = await sandbox.run(target("start_family"), str(tmp_path / "family"), limits=WIDE)
        await until(lambda: ended(first.child_pid))
        assert (await sandbox.run(target("echo"), limits=WIDE)).child_pid != first.child_pid
        await until(lambda: all_ended(descendants(os.getpid()) & set(numbers_in(tmp_path / "family"))))

    in_sandbox(use)


@linux
def test_a_fork_bomb_is_stopped_with_all_its_processes(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        neighbour = await start_neighbour(sandbox, tmp_path)
        with pytest.raises(Crashed, match="too many processes"):
            await sandbox.run(target("fork_bomb"), str(tmp_path / "bomb"), limits=WIDE)
        assert len(numbers_in(tmp_path / "bomb")) > 1
        await until(lambda: all_ended(numbers_in(tmp_path / "bomb")))
        await finish_neighbour(neighbour, tmp_path)

    in_sandbox(use, children=2)


@linux
def test_the_pool_recovers_when_the_forkserver_is_killed(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        for _ in range(3):
            child = psutil.Process((await sandbox.run(target("echo"), limits=WIDE)).child_pid)
            os.kill(child.ppid(), signal.SIGKILL)
            wait_for_end(child)  # nothing else goes on meanwhile: the next call meets the fact before the news
            assert (await sandbox.run(target("echo"), 1, limits=WIDE)).value == (1,)

    in_sandbox(use)


@linux
def test_a_call_that_loses_the_forkserver_is_a_crash_and_its_grandchildren_end(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        file = tmp_path / "family"
        call = sandbox.run(target("start_family_in_group_and_burn"), str(file), limits=WIDE)
        running = asyncio.create_task(call)
        await until(lambda: len(numbers_in(file)) == 2)
        child = parent_of(numbers_in(file)[0])
        os.kill(parent_of(numbers_in(file)[1]), signal.SIGKILL)
        with pytest.raises(Crashed):
            await running
        await until(lambda: all_ended([child, *numbers_in(file)]))

    in_sandbox(use)


@linux
@pytest.mark.parametrize("name", ["burn", "hang_deaf", "start_family_and_hang"])
def test_when_the_worker_is_killed_everything_below_it_ends(name: str, tmp_path: Path) -> None:
    worker = start_worker(name, tmp_path / "pids")

    async def use() -> None:
        await until(lambda: len(numbers_in(tmp_path / "pids")) >= (2 if name == "start_family_and_hang" else 1))
        below = descendants(worker.pid)
        assert below > set(numbers_in(tmp_path / "pids"))  # them, and the forkserver
        worker.kill()
        assert await until(lambda: all_ended(below)) < 2

    try:
        asyncio.run(use())
    finally:
        worker.kill()
        worker.wait()


def test_closing_ends_all_children_also_busy_and_deaf_ones(tmp_path: Path) -> None:
    others = descendants(os.getpid())  # a database of other tests, say

    async def use() -> None:
        sandbox = Sandbox(3)
        await sandbox.start()
        calls = [
            asyncio.create_task(sandbox.run(target(name), str(tmp_path / name), limits=WIDE))
            for name in ("burn", "hang_deaf")
        ]
        await until(lambda: all(numbers_in(tmp_path / name) for name in ("burn", "hang_deaf")))
        below = descendants(os.getpid()) - others
        await sandbox.aclose()
        assert await until(lambda: all_ended(below)) < 1
        assert [type(end) for end in await asyncio.gather(*calls, return_exceptions=True)] == [Crashed, Crashed]
        with pytest.raises(RuntimeError, match="closed"):
            await sandbox.run(target("echo"), limits=WIDE)

    asyncio.run(use())


def test_closing_without_waiting_for_the_loop_also_ends_all_children(tmp_path: Path) -> None:
    sandbox = Sandbox(1)
    result = asyncio.run(sandbox.run(target("echo"), limits=WIDE))
    assert not ended(result.child_pid)
    sandbox.close()  # the loop is gone
    assert ended(result.child_pid)
    sandbox.close()  # twice does no harm


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def start_worker(name: str, file: Path) -> subprocess.Popen[bytes]:
    """A worker process that runs one naughty call."""
    program = f"import test_sandbox as t; t.call({name!r}, {str(file)!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    return subprocess.Popen([sys.executable, "-c", program], env=environment)
