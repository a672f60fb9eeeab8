"""The sandbox: what comes back from a child, how warm it stays, and what its limits do."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from processes import ended, numbers_in, until

from tasks.errors import Permanent, Transient
from tasks.sandbox import Confined, CpuExceeded, Crashed, Limits, OutOfMemory, Sandbox, TimedOut
from tasks.sandbox.nursery import clean_environment

MIB = 1024 * 1024
WIDE = Limits(wall_s=30, cpu_s=20, memory_bytes=1024 * MIB)
CHILD_STARTS_WITHIN_S = 5  # on a busy machine


def target(name: str) -> str:
    return f"sandbox_targets:{name}"


def in_sandbox(use: Callable[[Sandbox], Awaitable[Any]], children: int = 1, **options: Any) -> Any:
    """Run `use` with a sandbox in an event loop of its own."""

    async def main() -> Any:
        async with Sandbox(children, **options) as sandbox:
            return await use(sandbox)

    return asyncio.run(main())


def call(name: str, *args: object, limits: Limits = WIDE) -> Any:
    return in_sandbox(lambda sandbox: sandbox.run(target(name), *args, limits=limits)).value


def test_a_call_brings_back_its_value_and_what_it_used() -> None:
    result = in_sandbox(lambda sandbox: sandbox.run(target("burn_for"), 0.3, limits=WIDE))
    assert result.value == 0.3
    assert 0.3 <= result.cpu_s < 3
    assert MIB < result.peak_memory_bytes < WIDE.memory_bytes
    assert result.child_pid != os.getpid()
    assert result.child_task_number == 1


def test_the_peak_belongs_to_the_call_and_not_to_the_child() -> None:
    async def use(sandbox: Sandbox) -> None:
        large = await sandbox.run(target("allocate_touched"), 200 * MIB, limits=WIDE)
        small = await sandbox.run(target("echo"), limits=WIDE)
        assert small.child_pid == large.child_pid
        assert large.peak_memory_bytes > 200 * MIB
        assert small.peak_memory_bytes < 100 * MIB

    in_sandbox(use)


def test_errors_of_steps_come_through_as_they_are() -> None:
    with pytest.raises(Permanent) as permanent:
        call("refuse_for_good", "not_a_book")
    assert (permanent.value.code, permanent.value.message) == ("not_a_book", "This file is not a book.")
    assert permanent.value.detail == "page 3"
    with pytest.raises(Transient) as transient:
        call("ask_to_wait", 7.5)
    assert transient.value.retry_after == 7.5


def test_an_error_carries_where_it_was_raised_but_not_the_text_again() -> None:
    with pytest.raises(ValueError, match="Call me Ishmael") as caught:
        call("say_secret", "Call me Ishmael")
    note = "".join(caught.value.__notes__)
    assert "sandbox_targets.py" in note
    assert "say_secret" in note
    assert "Ishmael" not in note


@pytest.mark.parametrize(
    ("name", "type_name", "text"),
    [
        ("raise_unpicklable", "Unpicklable", "the spine is broken"),
        ("raise_unopenable", "Unopenable", "the spine and the cover"),
        ("interrupt", "KeyboardInterrupt", "from within"),
        ("cancel_itself", "CancelledError", ""),
    ],
)
def test_an_error_that_cannot_travel_becomes_a_runtime_error_with_its_name_and_text(
    name: str, type_name: str, text: str
) -> None:
    with pytest.raises(RuntimeError, match=f"^{type_name}: {text}"):
        call(name)


def test_a_value_that_cannot_travel_is_an_error_of_that_call_only() -> None:
    async def use(sandbox: Sandbox) -> set[int]:
        pids = {(await sandbox.run(target("echo"), limits=WIDE)).child_pid}
        with pytest.raises(RuntimeError, match="cannot be opened in the worker"):
            await sandbox.run(target("return_unopenable"), limits=WIDE)
        with pytest.raises(Exception, match="local object"):
            await sandbox.run(target("return_unpicklable"), limits=WIDE)
        with pytest.raises(ValueError, match="must go through a file"):
            await sandbox.run(target("return_bytes"), 65 * MIB, limits=WIDE)
        return pids | {(await sandbox.run(target("echo"), limits=WIDE)).child_pid}

    assert len(in_sandbox(use)) == 1


def test_a_target_that_does_not_exist_is_said() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        in_sandbox(lambda sandbox: sandbox.run("no_such_module:f", limits=WIDE))
    with pytest.raises(AttributeError, match="no_such_function"):
        call("no_such_function")
    with pytest.raises(ValueError, match="not of the form"):
        in_sandbox(lambda sandbox: sandbox.run("os.getpid", limits=WIDE))


def test_libraries_load_once_per_child_and_its_calls_are_numbered() -> None:
    async def use(sandbox: Sandbox) -> None:
        results = [await sandbox.run(target("where_loaded"), limits=WIDE) for _ in range(5)]
        assert [result.child_task_number for result in results] == [1, 2, 3, 4, 5]
        assert {result.value for result in results} == {results[0].child_pid}

    in_sandbox(use)


def test_preloaded_libraries_load_once_for_all_children() -> None:
    async def use(sandbox: Sandbox) -> None:
        await sandbox.start()
        results = await asyncio.gather(*(sandbox.run(target("where_loaded"), limits=WIDE) for _ in range(8)))
        loaded_in = {result.value for result in results}
        assert len(loaded_in) == 1
        assert not loaded_in & {result.child_pid for result in results}

    in_sandbox(use, children=2, preload=["sandbox_targets"])


def test_a_preload_that_cannot_be_imported_is_said() -> None:
    with pytest.raises(RuntimeError, match="no_such_module"):
        in_sandbox(lambda sandbox: sandbox.start(), preload=["no_such_module"])


def test_a_child_is_replaced_after_max_tasks() -> None:
    async def use(sandbox: Sandbox) -> None:
        results = [await sandbox.run(target("echo"), limits=WIDE) for _ in range(5)]
        assert [result.child_task_number for result in results] == [1, 2, 1, 2, 1]
        assert len({result.child_pid for result in results}) == 3
        await until(lambda: ended(results[0].child_pid) and ended(results[2].child_pid))

    in_sandbox(use, max_tasks=2)


def test_calls_wait_in_order_and_the_wait_does_not_count(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> list[int]:
        gate, order = tmp_path / "gate", []
        short = Limits(wall_s=3, cpu_s=20, memory_bytes=WIDE.memory_bytes)

        async def wait_in_line(number: int) -> None:
            await sandbox.run(target("echo"), limits=short)
            order.append(number)

        first = asyncio.create_task(sandbox.run(target("work_until"), str(tmp_path / "in"), str(gate), limits=WIDE))
        line = []
        for number in range(6):
            line.append(asyncio.create_task(wait_in_line(number)))
        await until(lambda: numbers_in(tmp_path / "in"))
        line[2].cancel()  # one who leaves the line takes nobody's place along
        await asyncio.sleep(short.wall_s + 0.2)  # time itself is what is tested
        gate.touch()
        await asyncio.gather(first, *line, return_exceptions=True)
        return order

    assert in_sandbox(use) == [0, 1, 3, 4, 5]


def test_a_call_over_its_wall_clock_is_stopped_although_it_ignores_and_blocks_signals(tmp_path: Path) -> None:
    limits = Limits(wall_s=0.5, cpu_s=20, memory_bytes=WIDE.memory_bytes)
    started = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        call("hang_deaf", str(tmp_path / "pid"), limits=limits)
    assert time.monotonic() - started < limits.wall_s + CHILD_STARTS_WITHIN_S
    assert [caught.value.child_pid] == numbers_in(tmp_path / "pid")
    assert ended(caught.value.child_pid)
    assert caught.value.peak_memory_bytes > MIB


def test_a_call_over_its_cpu_is_stopped(tmp_path: Path) -> None:
    limits = Limits(wall_s=30, cpu_s=1, memory_bytes=WIDE.memory_bytes)
    with pytest.raises(CpuExceeded) as caught:
        call("burn", str(tmp_path / "pid"), limits=limits)
    assert ended(caught.value.child_pid)


def test_cpu_is_counted_per_call_and_not_per_child() -> None:
    async def use(sandbox: Sandbox) -> list[int]:
        limits = Limits(wall_s=30, cpu_s=1, memory_bytes=WIDE.memory_bytes)
        return [(await sandbox.run(target("burn_for"), 0.6, limits=limits)).child_task_number for _ in range(4)]

    assert in_sandbox(use) == [1, 2, 3, 4]


def test_a_huge_allocation_is_out_of_memory_and_costs_the_child() -> None:
    async def use(sandbox: Sandbox) -> None:
        with pytest.raises(OutOfMemory) as caught:
            await sandbox.run(target("allocate"), 3 * 1024 * MIB, limits=WIDE)
        after = await sandbox.run(target("echo"), limits=WIDE)
        assert after.child_pid != caught.value.child_pid
        await until(lambda: ended(caught.value.child_pid))

    in_sandbox(use)


def test_a_hidden_memory_error_comes_as_what_the_step_made_of_it_and_costs_the_child() -> None:
    async def use(sandbox: Sandbox) -> None:
        before = await sandbox.run(target("echo"), limits=WIDE)
        with pytest.raises(Permanent, match="too_big"):
            await sandbox.run(target("allocate_and_hide_it"), 3 * 1024 * MIB, limits=WIDE)
        assert (await sandbox.run(target("echo"), limits=WIDE)).child_pid != before.child_pid

    in_sandbox(use)


def test_the_memory_limit_also_holds_while_an_error_is_told() -> None:
    with pytest.raises(OutOfMemory):
        call("raise_greedy")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is not kept elsewhere")
def test_the_peak_of_a_child_that_takes_all_it_can_stays_under_its_limit() -> None:
    limits = Limits(wall_s=30, cpu_s=20, memory_bytes=256 * MIB)
    with pytest.raises(OutOfMemory) as caught:
        call("grow", limits=limits)
    assert 128 * MIB < caught.value.peak_memory_bytes < limits.memory_bytes


def test_native_code_that_aborts_at_its_limit_is_out_of_memory_and_far_from_it_a_crash() -> None:
    limits = Limits(wall_s=30, cpu_s=20, memory_bytes=256 * MIB)
    with pytest.raises(OutOfMemory):
        call("allocate_and_abort", 210 * MIB, limits=limits)
    with pytest.raises(Crashed) as caught:
        call("allocate_and_abort", MIB, limits=limits)
    assert caught.value.signal == signal.SIGABRT


def test_each_call_has_its_own_limits_in_the_same_child() -> None:
    async def use(sandbox: Sandbox) -> None:
        seen = []
        for mib in (300, 900, 500):
            limits = Limits(wall_s=30, cpu_s=5, memory_bytes=mib * MIB)
            seen.append(await sandbox.run(target("limits_seen"), limits=limits))
        assert [result.value["RLIMIT_AS"][0] for result in seen] == [300 * MIB, 900 * MIB, 500 * MIB]
        assert len({result.child_pid for result in seen}) == 1
        await sandbox.run(target("allocate"), 600 * MIB, limits=WIDE)

    in_sandbox(use)


def test_children_dump_no_core_gain_no_rights_and_open_a_sane_number_of_files() -> None:
    seen = call("limits_seen")
    assert seen["RLIMIT_CORE"][0] == 0
    assert seen["RLIMIT_NOFILE"][0] == min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert call("status_line", "NoNewPrivs") == "1"


def test_a_call_leaves_no_disorder_to_the_next(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        await sandbox.run(target("disturb"), str(tmp_path), limits=WIDE)
        around = await sandbox.run(target("look_around"), limits=WIDE)
        assert around.value == (os.getcwd(), 0.0, set())
        assert around.child_task_number == 2
        with pytest.raises(CpuExceeded):
            await sandbox.run(target("burn"), str(tmp_path / "pid"), limits=Limits(30, 0.2, WIDE.memory_bytes))

    in_sandbox(use)


def test_runaway_recursion_costs_one_call() -> None:
    async def use(sandbox: Sandbox) -> None:
        limits = Limits(wall_s=30, cpu_s=20, memory_bytes=128 * MIB)
        for name in ("recurse", "recurse_in_c"):
            # CPython itself has several answers to this, SystemError when memory ends in the wrong place.
            with pytest.raises((Confined, RecursionError, SystemError)):
                await sandbox.run(target(name), limits=limits)
            assert (await sandbox.run(target("echo"), 1, limits=limits)).value == (1,)

    in_sandbox(use)


def test_children_know_no_secret_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("LC_NUMERIC", "C")

    async def use(sandbox: Sandbox) -> None:
        result = await sandbox.run(target("environment"), limits=WIDE)
        assert result.value["LC_NUMERIC"] == "C"
        assert result.value.keys() <= clean_environment(os.environ).keys() | {"LC_CTYPE"}  # set by Python itself
        if sys.platform == "linux":
            assert b"secret" not in Path(f"/proc/{result.child_pid}/environ").read_bytes()

    in_sandbox(use)


def test_only_harmless_variables_are_handed_on() -> None:
    harmless = {"PATH": "a", "HOME": "b", "LANG": "c", "LC_ALL": "d", "TZ": "e", "PYTHONPATH": "f"}
    secrets = {"DATABASE_URL": "x", "JWT_SECRET": "x", "LINK_SECRET": "x", "PGPASSWORD": "x", "HOMEBREW_TOKEN": "x"}
    assert clean_environment(harmless | secrets) == harmless


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_inherit_no_socket_of_the_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        for one in (server, client):
            one.set_inheritable(True)  # worse than any library does it
        ours = {os.readlink(f"/proc/self/fd/{one.fileno()}") for one in (server, client)}
        theirs = call("open_files")
    assert not ours & set(theirs.values())
    assert sum(name.startswith("socket:") for name in theirs.values()) == 1
    assert [theirs[number] for number in (0, 1, 2)] == ["/dev/null"] * 3


def test_nothing_a_child_prints_reaches_the_output_of_the_worker() -> None:
    program = (
        "import test_sandbox as t\n"
        "t.call('chatter', 'manuscript text')\n"
        "try: t.call('say_secret', 'manuscript text')\n"
        "except ValueError: print('done')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    worker = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (worker.stdout, worker.stderr) == ("done\n", "")


def test_it_works_under_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with Sandbox(2) as sandbox:
            assert (await sandbox.run(target("echo"), 1, limits=WIDE)).value == (1,)
            with pytest.raises(Crashed):
                await sandbox.run(target("leave"), 3, limits=WIDE)
            with pytest.raises(TimedOut):
                await sandbox.run(target("hang"), os.devnull, limits=Limits(0.2, 5, WIDE.memory_bytes))
            large = await sandbox.run(target("return_bytes"), 20 * MIB, limits=WIDE)
            assert len(large.value) == 20 * MIB

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
