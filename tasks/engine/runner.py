"""One step run, from claimed to settled."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tasks.db import heed_cancellation
from tasks.engine.attempt import Attempt
from tasks.engine.call import Call, Returned, describe_items, digest, fits_in_row, perform_async
from tasks.engine.desk import AWAY, Desk
from tasks.engine.inputs import Workspace, assemble, load, load_text, read_text
from tasks.engine.outcomes import judge
from tasks.engine.tally import Ending, Tally
from tasks.engine.trail import Trail
from tasks.errors import Permanent, StepFailure
from tasks.pipeline import SPECIAL, Step
from tasks.pipelines import declared
from tasks.sandbox import Limits, Sandbox
from tasks.settings import Settings
from tasks.storage import Storage, digest_file

if TYPE_CHECKING:
    from tasks.spans import Tracing

log = logging.getLogger(__name__)

_PROGRESS_S = 0.5

Room = Callable[[], Sequence[str]]  # the queues in which one more step can be run at this moment


def _nowhere() -> Sequence[str]:
    return ()


@dataclass
class _Held:
    """An attempt in hand, and the task that runs it. `settling`: its outcome is with the ledger, or on the way."""

    attempt: Attempt
    task: asyncio.Task[None]
    revoked: bool = False
    settling: bool = False


class Runner:
    """Runs attempts. `held`: the attempts in hand, for the heartbeat; `revoke` stops one that is no longer ours;
    `tally`: what became of those that ended."""

    def __init__(
        self, settings: Settings, desk: Desk, storage: Storage, sandbox: Sandbox, tracing: Tracing | None = None
    ) -> None:
        self._settings = settings
        self._pipelines = declared(settings.pipeline_packages)
        self._desk = desk
        self._storage = storage
        self._sandbox = sandbox
        self.tally = Tally()
        self._trail = Trail(tracing, desk)
        self._held: dict[UUID, _Held] = {}

    @property
    def held(self) -> dict[str, int]:
        """Step run and attempt number of everything in hand."""
        return {str(step_run): held.attempt.number for step_run, held in self._held.items()}

    def revoke(self, step_runs: Iterable[UUID]) -> None:
        """Stop attempts that the ledger has taken away: cancelled, or given to another worker.

        One that is being settled is let be. A beat that crosses it finds that it no longer runs, and what its answer
        begins would be stopped in its stead.
        """
        for step_run in step_runs:
            if (held := self._held.get(step_run)) and not held.settling:
                held.revoked = True
                held.task.cancel()

    async def run(self, attempt: Attempt, room: Room = _nowhere) -> None:
        """Run an attempt to its end, and then what follows it where there is room.

        Returns when the ledger knows it; when cancelled, gives the attempt back.
        """
        following: Attempt | None = attempt
        while following is not None:
            following = await self._run_one(following, room)

    async def _run_one(self, attempt: Attempt, room: Room) -> Attempt | None:
        task = asyncio.current_task()
        assert task is not None
        held = self._held[attempt.step_run] = _Held(attempt, task)
        try:
            return await self._execute(held, room)
        except asyncio.CancelledError:
            if held.revoked and not task.uncancel():
                return None
            await self._desk.release(attempt)  # the worker stops, and nothing is left running
            raise
        finally:
            # The next attempt of the same step run may be in hand already: it was queued when this one was settled.
            if self._held.get(attempt.step_run) is held:
                del self._held[attempt.step_run]

    async def _execute(self, held: _Held, room: Room) -> Attempt | None:
        with self.tally.watch(held.attempt) as ending:
            async with self._trail.follow(held.attempt, ending):
                return await self._carry_out(held, ending, room)

    async def _carry_out(self, held: _Held, ending: Ending, room: Room) -> Attempt | None:
        attempt = held.attempt
        step = following = None
        try:
            step = self._find_step(attempt)
            result, items = await self._reuse(attempt) if attempt.reuse else await self._compute(attempt, step)
            held.settling = True
            accepted, following = await self._desk.complete(attempt, result, items, room())
            ending.outcome = "reused" if attempt.reuse else "skipped" if "skipped" in result else "completed"
        except AWAY:
            raise  # not the step's fault: the ledger finds out by the missing heartbeat
        except Exception as error:
            failure = judge(error, attempt, step)
            if not isinstance(error, StepFailure):
                log.warning(
                    "attempt %s of %s.%s ended with %s", attempt.number, attempt.pipeline, attempt.step, failure.code
                )
            accepted = await self._desk.fail(attempt, failure)
            ending.outcome, ending.code = "failed" if failure.retry_in is None else "retrying", failure.code
        if not accepted:
            ending.outcome, ending.code = "stale", ""
            log.info("attempt %s of step run %s was stale; nothing of it was kept", attempt.number, attempt.step_run)
        return following

    def _find_step(self, attempt: Attempt) -> Step:
        pipeline = self._pipelines.get(attempt.pipeline)
        if pipeline is None or attempt.step not in pipeline.steps:
            raise Permanent(
                "step_unknown",
                f"This job needs the step {attempt.pipeline}.{attempt.step}, which this release no longer has.",
                detail=f"published by deploy {attempt.deploy!r}; this worker runs deploy {self._settings.deploy!r}",
            )
        step = pipeline.steps[attempt.step]
        strange = {name for name in step.parameters if name not in SPECIAL} - attempt.inputs.keys()
        if strange or ("item" in step.parameters) != (attempt.item is not None):
            raise Permanent(
                "step_unknown",
                f"This job was submitted for an earlier form of the step {attempt.pipeline}.{attempt.step}.",
                detail=f"published by deploy {attempt.deploy!r}; the step of this worker's deploy "
                f"{self._settings.deploy!r} is given other inputs: {', '.join(sorted(strange)) or 'item'}",
            )
        return step

    async def _reuse(self, attempt: Attempt) -> tuple[dict[str, Any], list[Any] | None]:
        assert attempt.reuse is not None
        items = None
        if attempt.mapped:
            items = describe_items(await load(attempt.reuse.stored, attempt.tenant, self._storage) or [])
        said: dict[str, Any] = {"reuse": attempt.reuse.result_id}
        if attempt.reuse.skipped:
            said["skipped"] = "It had nothing to do before, with the same input."
        if attempt.reuse.text:
            said["text"] = await load_text(attempt.reuse.text, attempt.tenant, self._storage)
        return said, items

    async def _compute(self, attempt: Attempt, step: Step) -> tuple[dict[str, Any], list[Any] | None]:
        with Workspace() as space:
            call = await assemble(attempt, step, space, self._desk, self._storage)
            async with self._following_progress(attempt, call) as reports:
                returned, used = await self._call(step, call)
            self._check(returned)
            last = reports.newest() if reports else None
            said: dict[str, Any] = {"progress": last} if last else {}
            if step.version != attempt.version:
                said["version"] = step.version
            return await self._store(attempt, returned, space) | used | said, returned.items

    async def _call(self, step: Step, call: Call) -> tuple[Returned, dict[str, Any]]:
        """What the step returned, and what it used, if that can be known."""
        if not step.confined:
            async with asyncio.timeout(step.timeout_s):
                return await perform_async(call), {}
        limits = Limits(step.timeout_s, step.timeout_s, step.memory_bytes)
        result = await self._sandbox.run("tasks.engine.call:perform", call, limits=limits)
        return result.value, {"used": {"cpu_s": result.cpu_s, "peak_memory_bytes": result.peak_memory_bytes}}

    @asynccontextmanager
    async def _following_progress(self, attempt: Attempt, call: Call) -> AsyncIterator[Reports | None]:
        """Fold the step's reports: write the newest every half second. The last one is written with the result."""
        if call.folder is None:
            yield None
            return
        reports = Reports(call.folder / "progress")
        watcher = asyncio.create_task(self._pass_on(attempt, reports))
        try:
            yield reports
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _pass_on(self, attempt: Attempt, reports: Reports) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            if report := reports.newest():
                try:
                    await self._desk.report_progress(attempt, *report)
                    reports.told()
                except AWAY:
                    log.info("the database is away; a progress report was dropped")
                heed_cancellation()

    def _check(self, returned: Returned) -> None:
        if returned.items is not None and len(returned.items) > self._settings.max_items:
            raise Permanent(
                "too_many_items",
                f"This has {len(returned.items)} parts; one job can work on {self._settings.max_items} at most.",
            )

    async def _store(self, attempt: Attempt, returned: Returned, space: Workspace) -> dict[str, Any]:
        """Carry the call's bytes to Storage; the result as the ledger takes it."""
        result: dict[str, Any] = {"digest": digest(returned.text), "artifacts": returned.artifacts}
        if returned.skipped is not None:
            result["skipped"] = returned.skipped
        if fits_in_row(returned.text):
            result["value"] = json.loads(returned.text)
        else:
            result["blob"] = {"sha256": result["digest"], "bytes": len(returned.text.encode())}
            (space.folder / result["digest"]).write_text(returned.text, encoding="utf-8")
            returned.blobs.add(result["digest"])
        if returned.description is not None:
            result["description"] = returned.description
            if "text" in returned.description:
                result["text"] = read_text(space.folder / returned.description["text"]["sha256"])
        if returned.blobs or returned.pointers:
            result["blobs"] = sorted(returned.blobs | returned.pointers)
        if returned.blobs:
            await self._desk.announce(attempt.tenant, sorted(returned.blobs), self._settings.collect_after_s)
            await asyncio.to_thread(self._put_all, attempt, returned.blobs, space.folder)
        return result

    def _put_all(self, attempt: Attempt, blobs: Iterable[str], folder: Path) -> None:
        for sha256 in blobs:
            if digest_file(folder / sha256)[0] != sha256:
                raise Permanent("result_damaged", "A step handed in bytes that are not what it said they were.")
            self._storage.put(attempt.tenant, sha256, folder / sha256)


class Reports:
    """The progress reports a step leaves in its folder; only the newest counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._given: tuple[int, int] = (0, 0)
        self._told: tuple[int, int] = (0, 0)

    def told(self) -> None:
        """The report that was given out last has arrived; one that was cut off on its way is given out again."""
        self._told = self._given

    def newest(self) -> tuple[int, int, str] | None:
        """The newest report; None when there is none that was not told before."""
        try:
            stat = self._path.stat()
            current, total, message = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        self._given = (stat.st_mtime_ns, stat.st_ino)
        if self._given == self._told:
            return None
        return int(current), int(total), str(message)
