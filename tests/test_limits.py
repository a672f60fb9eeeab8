"""Limits of the ledger: what a tenant may have at a time, and what may wait in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from ledger_play import Play, refused
from psycopg.rows import dict_row

from tasks import ledger
from tasks.settings import Settings


def release(play: Play, jobs: int = 1_000_000, stored: int = 10**15, depth: int = 1_000_000) -> None:
    """Release these limits for everybody."""
    play.all("select ledger.release_limits(%s, %s, %s)", jobs, stored, depth)


def limit(play: Play, **own: int | None) -> dict[str, Any]:
    """Give the tenant limits of its own."""
    return ledger.limit_tenant(play.connection, play.tenant, own)


def fill(play: Play, jobs: int) -> None:
    """Make so many jobs that are not over, and wait for nobody."""
    play.all(
        "insert into jobs (id, tenant_id, pipeline, graph, total_weight, payload_digest, created_at, updated_at)"
        " select ledger.uuid7(), %s, 'line', graph, 1, '', now(), now() from pipelines, generate_series(1, %s)"
        " where name = 'line' returning 1",
        play.tenant,
        jobs,
    )


def active(play: Play, most: int = 1_500) -> int:
    return int(play.one("select ledger.active_jobs(%s, %s)", play.tenant, most))


# Active jobs ---------------------------------------------------------------------------------------


def test_a_tenant_may_have_so_many_jobs_that_are_not_over(play: Play) -> None:
    release(play, jobs=2)
    first = play.submit()
    play.submit()
    with refused(play.connection, "active_jobs_limit_reached", 429) as caught:
        play.submit()
    assert caught.value.details == {"limit": "active_jobs", "value": 2, "current": 2, "retry_after_s": 10}
    play.cancel(first)
    play.submit()
    assert play.drift() == []


def test_those_who_come_at_the_same_moment_do_not_pass_the_limit_together(play: Play) -> None:
    release(play, jobs=3)
    play.submit(params={"width": 100})
    claims = {"sub": str(play.user)}
    orders = [
        ledger.Order(ledger.Submission(play.tenant, play.user, "line", params={"width": width}), claims, 1)
        for width in range(5)
    ]
    answers = ledger.submit_together(play.connection, orders)
    assert sorted(getattr(answer, "code", "created") for answer in answers) == (
        ["active_jobs_limit_reached"] * 3 + ["created"] * 2
    )
    assert play.one("select count(*) from jobs") == 3


def test_a_request_that_has_its_job_already_is_refused_by_no_limit(play: Play) -> None:
    release(play, jobs=1)
    first = play.submit(params={"width": 1}, idempotency_key="one")
    assert play.submit(params={"width": 1}, idempotency_key="one") == first
    with refused(play.connection, "active_jobs_limit_reached", 429):
        play.submit(params={"width": 1}, idempotency_key="two")
    with refused(play.connection, "idempotency_key_reused", 422):
        play.submit(params={"width": 2}, idempotency_key="one")
    assert play.one("select count(*) from jobs") == 1


def test_what_is_refused_leaves_nothing(play: Play) -> None:
    release(play, jobs=1)
    play.submit()
    with refused(play.connection, "active_jobs_limit_reached", 429):
        play.submit()
    assert (play.one("select count(*) from jobs"), len(play.queue())) == (1, 1)


def test_a_tenants_own_limit_goes_before_everybodys_and_can_be_taken_back(play: Play) -> None:
    release(play, jobs=1)
    limit(play, active_jobs=2)
    play.submit()
    play.submit()
    with refused(play.connection, "active_jobs_limit_reached", 429):
        play.submit()
    assert limit(play, active_jobs=None)["active_jobs"] is None
    with refused(play.connection, "active_jobs_limit_reached", 429) as caught:
        play.submit()
    assert caught.value.details["value"] == 1


def test_changing_one_limit_leaves_the_others(play: Play) -> None:
    limit(play, active_jobs=5, stored_bytes=7)
    assert limit(play, upload_bytes=9) == {
        "tenant_id": play.tenant, "active_jobs": 5, "stored_bytes": 7, "upload_bytes": 9, "requests_per_minute": None,
    }  # fmt: skip


def test_one_tenants_jobs_do_not_count_for_another(play: Play) -> None:
    release(play, jobs=1)
    play.submit()
    other = play.add_tenant()
    assert play.send(tenant_id=other).created


def test_retrying_a_job_counts_like_starting_one(play: Play) -> None:
    release(play, jobs=1)
    job = play.submit()
    play.fail(play.begin())
    play.submit()
    with refused(play.connection, "active_jobs_limit_reached", 429):
        play.retry(job)
    assert play.job(job)["status"] == "failed"
    limit(play, active_jobs=2)
    play.retry(job)
    assert play.job(job)["status"] == "queued"


def test_what_is_wrong_with_a_request_is_said_before_a_limit_is(play: Play) -> None:
    release(play, jobs=0)
    with refused(play.connection, "unknown_pipeline", 422):
        play.submit("nowhere")


def test_nothing_is_limited_before_a_release_has_said_how_much(play: Play) -> None:
    assert play.all("select * from ops.limits") == []
    play.submit()


def test_a_release_tells_the_settings(play: Play) -> None:
    settings = Settings(_env_file=None, database_url="x", link_secret="x", max_active_jobs=7, max_queue_depth=9)  # type: ignore[call-arg, arg-type]
    ledger.release_settings(play.connection, settings)
    (told,) = play.all("select active_jobs, stored_bytes, queue_depth from ops.limits")
    assert told == {"active_jobs": 7, "stored_bytes": 2**40, "queue_depth": 9}


# Counting ------------------------------------------------------------------------------------------


def test_up_to_a_thousand_jobs_are_counted_each_time_when_the_limit_is_near(play: Play) -> None:
    fill(play, 900)
    assert active(play) == 900
    fill(play, 100)
    assert active(play) == 1000
    assert play.all("select * from ops.tenant_loads") == []


def test_when_the_limit_is_far_it_is_enough_to_count_once_a_second(play: Play) -> None:
    fill(play, 900)
    assert active(play, most=250_000) == 900
    fill(play, 1)
    assert active(play, most=250_000) == 900
    play.pass_time(2)
    assert active(play, most=250_000) == 901
    fill(play, 1)
    assert active(play, most=1500) == 902


def test_a_limit_below_a_thousand_holds_to_the_job(play: Play) -> None:
    release(play, jobs=502)
    fill(play, 500)
    play.submit()
    play.submit()
    with refused(play.connection, "active_jobs_limit_reached", 429) as caught:
        play.submit()
    assert caught.value.details["current"] == 502


def test_more_are_counted_when_the_count_is_old(play: Play) -> None:
    fill(play, 2000)
    assert active(play) == 2000
    fill(play, 50)
    assert active(play) == 2000
    play.pass_time(2)
    assert active(play) == 2050


def test_a_count_of_many_is_forgotten_when_there_are_few_again(play: Play) -> None:
    fill(play, 2000)
    assert active(play) == 2000
    play.all("update jobs set status = 'cancelled', finished_at = now() returning 1")
    play.pass_time(2)
    assert active(play) == 0


def test_only_one_counts_and_the_others_use_what_is_known(real_play: Play, database_url: str) -> None:
    fill(real_play, 1500)
    assert active(real_play) == 1500
    fill(real_play, 100)
    with psycopg.connect(database_url, row_factory=dict_row) as second:
        other = real_play.on(second)
        other.pass_time(5)
        assert active(other) == 1600
        real_play.pass_time(5)
        assert active(real_play) == 1500
        second.commit()
    assert active(real_play) == 1600


# Depth ---------------------------------------------------------------------------------------------


def test_only_so_much_may_wait_in_all(play: Play) -> None:
    release(play, depth=3)
    for _ in range(3):
        play.send(tenant_id=play.add_tenant())
        play.pass_time(play.one("select count(*)::integer * 2 from jobs"))
    with refused(play.connection, "queue_depth_limit_reached", 429) as caught:
        play.submit()
    assert caught.value.details == {"limit": "queue_depth", "value": 3, "current": 3, "retry_after_s": 30}
    play.begin()
    play.pass_time(20)
    play.submit()


def test_the_depth_is_known_by_queue(play: Play) -> None:
    play.submit("line")
    play.one("select ledger.queue_depth()")
    counts = play.all("select name, amount from ops.counts where kind = 'queue'")
    assert {row["name"]: row["amount"] for row in counts} == {"cpu": 0, "llm": 1, "media": 0, "maintenance": 0}


# Stored bytes --------------------------------------------------------------------------------------


def check(play: Play, size: int) -> Callable[[], None]:
    return lambda: ledger.check_storage(play.connection, play.tenant, size)


def test_documents_and_artifacts_count_towards_stored_bytes(play: Play) -> None:
    release(play, stored=1000)
    play.add_document("x" * 400)
    job = play.submit()
    work = play.begin()
    artifact = {"name": "a.txt", "media_type": "text/plain", "bytes": 500, "sha256": "a" * 64}
    play.complete(work, 1, artifacts=[artifact])
    assert play.artifacts(job)
    check(play, 100)()
    with refused(play.connection, "storage_limit_reached", 429) as caught:
        check(play, 101)()
    assert caught.value.details == {"limit": "stored_bytes", "value": 1000, "current": 900, "retry_after_s": 3600}
    limit(play, stored_bytes=2000)
    check(play, 101)()


def test_many_documents_are_counted_when_the_count_is_old(play: Play) -> None:
    def add(count: int) -> None:
        play.all(
            "insert into documents (id, tenant_id, title, filename, kind, media_type, bytes, sha256)"
            " select ledger.uuid7(), %s, 't', 't', 'txt', 'text/plain', 10, repeat('a', 64)"
            " from generate_series(1, %s) returning 1",
            play.tenant,
            count,
        )

    def stored() -> int:
        return int(play.one("select ledger.stored_bytes(%s)", play.tenant))

    add(1000)
    assert stored() == 10_000
    add(500)
    assert stored() == 15_000
    add(1)
    assert stored() == 15_000
    play.pass_time(2)
    assert stored() == 15_010


# Who may see them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mine", [True, False])
def test_members_see_their_tenants_limits_and_no_others(play: Play, mine: bool) -> None:
    limit(play, active_jobs=5)
    user: UUID = play.user if mine else UUID(int=5)
    play.all("select set_config('request.jwt.claims', jsonb_build_object('sub', %s::text)::text, true)", user)
    play.connection.execute("set local role authenticated")
    assert len(play.all("select * from tenant_limits")) == mine
