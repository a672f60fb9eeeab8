"""Requests of the same moment submit their jobs in one call, and what one is refused is refused to that one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from api_play import NEW, Front, Served, error_code, make_claims
from crowds import at_once
from ledger_play import Play

from tasks import ledger


def order(play: Play, user: UUID | None = None, **wanted: Any) -> ledger.Order:
    """An order of somebody, the play's own user unless named."""
    who = user or play.user
    known: dict[str, Any] = {"tenant_id": play.tenant, "pipeline": "line", "params": {"width": 4}}
    return ledger.Order(ledger.Submission(user_id=who, **known | wanted), make_claims(who), 100)


def together(play: Play, *orders: ledger.Order) -> list[Any]:
    return list(ledger.submit_together(play.connection, list(orders)))


def test_everybody_is_shown_their_own_job(play: Play) -> None:
    keys = [uuid4().hex for _ in range(5)]
    seen = together(play, *(order(play, params={"width": n}, idempotency_key=key) for n, key in enumerate(keys)))
    assert [one.created for one in seen] == [True] * 5
    assert [one.look["params"] for one in seen] == [{"width": n} for n in range(5)]
    stored = play.all("select id::text, idempotency_key from jobs")
    assert {row["id"]: row["idempotency_key"] for row in stored} == {
        one.look["id"]: key for one, key in zip(seen, keys, strict=True)
    }
    assert play.drift() == []


def test_one_that_is_refused_leaves_the_others(play: Play) -> None:
    unknown = order(play, pipeline="nowhere")
    absent = order(play, pipeline="reading", params={}, document_id=uuid4())
    first, second, third, last = together(play, order(play), unknown, absent, order(play, params={"width": 5}))
    assert (first.created, last.created) == (True, True)
    assert [(one.code, one.status, one.details) for one in (second, third)] == [
        ("unknown_pipeline", 422, {"pipeline": "nowhere"}),
        ("document_not_found", 404, {}),
    ]
    assert play.one("select count(*) from jobs") == 2


def test_one_who_is_not_what_they_were_taken_for_is_refused_alone(play: Play) -> None:
    play.all("update members set role = 'editor' where user_id = %s returning 1", play.user)
    known = order(play)
    taken_for = [replace(order(play, params={"width": n}), role=role) for n, role in enumerate(("editor", "owner"))]
    stranger = replace(order(play, user=uuid4()), role="editor")
    seen = together(play, known, *taken_for, stranger)
    assert [getattr(one, "code", None) for one in seen] == [None, None, "member_changed", "member_changed"]
    assert play.one("select count(*) from jobs") == 2


def test_equal_requests_of_one_moment_are_one_job(play: Play) -> None:
    seen = together(play, *[order(play)] * 3)
    assert sorted(one.created for one in seen) == [False, False, True]
    assert len({one.look["id"] for one in seen}) == 1


def test_those_of_one_moment_line_up_as_if_each_had_come_by_itself(play: Play) -> None:
    orders = [order(play, params={"width": width}) for width in range(4)]

    def line_up(*groups: list[ledger.Order]) -> list[tuple[Any, ...]]:
        """Where the jobs of these groups get their places, and nothing of it is kept."""
        with play.connection.transaction(force_rollback=True):
            for group in groups:
                together(play, *group)
            found = play.all(
                "select j.params, q.priority from jobs j join job_steps s on s.job_id = j.id"
                " join procrastinate.procrastinate_jobs q on q.id = s.queue_job_id order by j.id"
            )
            return [(row["params"]["width"], row["priority"]) for row in found]

    one_by_one = line_up(*([one] for one in orders))
    assert len({priority for _, priority in one_by_one}) == 4
    assert line_up(orders) == one_by_one


def test_who_is_no_member_is_shown_nothing(play: Play) -> None:
    (seen,) = together(play, order(play, user=uuid4()))
    assert seen.look is None


def test_what_the_database_cannot_take_spoils_nobody_else(real_play: Play) -> None:
    broken = order(real_play, tenant_id=uuid4())  # no such tenant: the row would break a foreign key
    first, second, third = together(real_play, order(real_play), broken, order(real_play, params={"width": 5}))
    assert (first.created, third.created) == (True, True)
    assert isinstance(second, psycopg.IntegrityError)
    assert real_play.one("select count(*) from jobs") == 2


def test_groups_of_the_same_requests_in_any_order_do_not_wait_for_each_other(
    real_play: Play, database_url: str
) -> None:
    keys = [uuid4().hex for _ in range(12)]
    orders = [order(real_play, params={"width": n}, idempotency_key=key) for n, key in enumerate(keys)]
    ways = [orders, orders[::-1], orders[6:] + orders[:6], orders[::2] + orders[1::2]]
    got = at_once(real_play, database_url, *(lambda hand, way=way: together(hand, *way) for way in ways))
    assert [one for group in got for one in group if isinstance(one, Exception)] == []
    assert sum(one.created for group in got for one in group) == 12
    assert real_play.one("select count(*) from jobs") == 12


def test_at_a_served_api_a_crowd_is_answered_each_with_their_own(front: Front, served: Served) -> None:
    person = front.person()
    wanted = [{"width": n} for n in range(40)]

    def post(params: dict[str, int]) -> httpx.Response:
        with served.client(person) as client:
            key = {"Idempotency-Key": f"crowd-{params['width']}"}
            pipeline = "nowhere" if params["width"] % 10 == 9 else NEW["pipeline"]
            return client.post("/jobs", json={"pipeline": pipeline, "params": params}, headers=key)

    with ThreadPoolExecutor(16) as hands:
        answers = list(hands.map(post, wanted))
    refused = [error_code(answer) for answer in answers if answer.status_code >= 400]
    assert refused == ["unknown_pipeline"] * 4
    accepted = {
        params["width"]: answer.json() for params, answer in zip(wanted, answers, strict=True) if answer.is_success
    }
    assert {width: job["params"]["width"] for width, job in accepted.items()} == {width: width for width in accepted}
    assert len({job["id"] for job in accepted.values()}) == 36
