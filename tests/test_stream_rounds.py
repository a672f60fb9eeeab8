"""Many streams read in one round trip, each as its own user, and under row-level security each for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from api_play import Front, Person, make_claims
from waiting import until

from api.house import house_of
from api.rounds import Rounds
from api.together import Reading, open_event_rounds
from tasks.db import Row


class Held(Rounds[Reading, list[Row]]):
    """Rounds that are held up in the first one, so that all who come meanwhile share the second. `sizes`: of each."""

    def __init__(self, front: Front, most: int = 100) -> None:
        super().__init__(self._hold, most)
        self._real = open_event_rounds(house_of(front.app).pool)
        self.sizes: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.fails = False

    def _hold(self, readings: list[Reading]) -> Any:
        self.sizes.append(len(readings))
        if len(self.sizes) == 1:
            self.begun.set()
            assert self.go_on.wait(20)
        if self.fails and len(self.sizes) == 2:
            raise psycopg.OperationalError("gone")
        return self._real._answer(readings)


@pytest.fixture
def rounds(front: Front) -> Iterator[Held]:
    held = Held(front)
    yield held
    held.go_on.set()


def ask_together(rounds: Held, asks: list[Callable[[], Any]]) -> list[Any]:
    """What each got who asked while the first was being answered; an error is what one got, too."""
    got: list[Any] = [None] * len(asks)

    def ask(number: int) -> None:
        try:
            got[number] = asks[number]()
        except psycopg.Error as error:
            got[number] = error

    threads = [threading.Thread(target=ask, args=[number]) for number in range(len(asks))]
    threads[0].start()
    assert rounds.begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(rounds._waiting) == len(asks) - 1)
    rounds.go_on.set()
    for thread in threads:
        thread.join(20)
    return got


def question(rounds: Held, person: Person, tenant: UUID, job: UUID, after: int = 0) -> Callable[[], list[int]]:
    def ask() -> list[int]:
        return [row["seq"] for row in rounds.ask(Reading(make_claims(person.user), tenant, job, after, 500))]

    return ask


def test_in_one_round_everybody_is_told_what_is_theirs_and_nothing_else(front: Front, rounds: Held) -> None:
    play, member, stranger, gone = front.play, front.person(), front.stranger(), front.person("viewer")
    ours, theirs = play.submit(), UUID(stranger.post("/jobs", json={"pipeline": "line", "params": {}}).get_json()["id"])
    play.cancel(ours)
    their_tenant = play.job(theirs)["tenant_id"]
    play.all("delete from members where user_id = %s returning 1", gone.user)
    got = ask_together(
        rounds,
        [
            question(rounds, member, play.tenant, ours),
            question(rounds, member, play.tenant, ours, after=1),
            question(rounds, stranger, play.tenant, ours),
            question(rounds, stranger, their_tenant, ours),
            question(rounds, stranger, their_tenant, theirs),
            question(rounds, member, their_tenant, theirs),
            question(rounds, gone, play.tenant, ours),
            question(rounds, member, play.tenant, ours),
        ],
    )
    assert got == [[1, 2], [2], [], [], [1], [], [], [1, 2]]
    assert rounds.sizes == [1, 7]


def test_what_goes_wrong_in_a_round_is_told_to_all_who_are_in_it_and_to_nobody_else(front: Front, rounds: Held) -> None:
    job, person = front.play.submit(), front.person()
    rounds.fails = True
    first, *others = ask_together(rounds, [question(rounds, person, front.play.tenant, job)] * 4)
    assert first == [1]
    assert [type(one) for one in others] == [psycopg.OperationalError] * 3
    assert question(rounds, person, front.play.tenant, job)() == [1]


def test_more_than_fit_into_a_round_are_told_in_the_next(front: Front) -> None:
    rounds = Held(front, most=3)
    job, person = front.play.submit(), front.person()
    assert ask_together(rounds, [question(rounds, person, front.play.tenant, job)] * 8) == [[1]] * 8
    assert rounds.sizes == [1, 3, 3, 1]


def test_a_round_leaves_nobody_signed_in_on_the_connection(front: Front, rounds: Held) -> None:
    rounds.go_on.set()
    job, person = front.play.submit(), front.person()
    question(rounds, person, front.play.tenant, job)()
    with house_of(front.app).pool.connection() as connection:
        row = connection.execute(
            "select current_user = session_user as oneself, current_setting('request.jwt.claims', true) as claims"
        ).fetchone()
    assert row is not None
    assert row["oneself"]
    assert not row["claims"]
