"""Many open streams in one API process: everybody is told everything, and each costs little memory."""

from __future__ import annotations

import psutil
from api_play import PREFIX, Front, Served
from stream_crowd import crowd
from waiting import until

STREAMS = 150
KIB = 1024


def test_each_of_many_streams_is_told_its_whole_story_and_holds_little_memory(front: Front, served: Served) -> None:
    play, person = front.play, front.person()
    play.beat(took_from=["cpu"])
    for _ in range(STREAMS):
        play.submit("one")
    works = play.begin_all(STREAMS)
    paths = [f"/jobs/{work['job']}/stream" for work in works]
    process = psutil.Process(served.worker_pid)
    # What the first ones load is not theirs.
    with crowd(served.url + PREFIX, paths[:20], person.bearer()):
        before = process.memory_info().rss
    with crowd(served.url + PREFIX, [*paths, "/stream?after=0"], person.bearer()) as clients:
        for number in range(3):
            play.all("select ledger.report_progress(s.id, s.attempt, %s, 9, %s) from job_steps s"
                     " where s.status = 'running'", number, f"mark {number}")  # fmt: skip
        for work in works:
            play.complete(work)
        *each, whole = clients
        until(lambda: all(client.closed or len(client.ids) >= 7 for client in each))
        until(lambda: len(whole.ids) >= STREAMS * 8)
        held = process.memory_info().rss - before
    for client, work in zip(each, works, strict=True):
        assert client.ids == [str(number) for number in range(1, play.job(work["job"])["last_seq"] + 1)]
        assert client.marks.keys() == {0, 1, 2}
    assert len(whole.ids) == len(set(whole.ids)) == play.one("select count(*) from job_events")
    assert held / STREAMS < 100 * KIB
