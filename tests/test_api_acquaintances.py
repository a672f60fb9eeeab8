"""Whoever asked a moment ago is not asked about first, and is refused nothing less for it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from api_play import NEW, Front, Person, error_code, submit_job

from api import acquaintances
from api.acquaintances import Acquaintances
from api.house import house_of


@pytest.fixture
def known(front: Front) -> Person:
    """An editor who has just submitted a job."""
    person = front.person("editor")
    submit_job(front, person)
    assert house_of(front.app).acquaintances.find(person.user, NEW["pipeline"])
    return person


def post(person: Person, width: int = 9) -> tuple[int, str | None]:
    answer = person.post("/jobs", json=NEW | {"params": {"width": width}})
    return answer.status_code, error_code(answer) if answer.status_code >= 400 else None


def test_who_was_removed_is_no_member_from_that_moment_on(front: Front, known: Person) -> None:
    front.play.all("delete from members where user_id = %s returning 1", known.user)
    assert post(known) == (403, "no_tenant")
    assert front.play.one("select count(*) from jobs") == 1


def test_who_may_less_may_less_at_once(front: Front, known: Person) -> None:
    front.play.all("update members set role = 'viewer' where user_id = %s returning 1", known.user)
    assert post(known) == (403, "role_not_allowed")
    front.play.all("update members set role = 'owner' where user_id = %s returning 1", known.user)
    assert post(known) == (202, None)


def test_a_request_that_is_handled_once_more_is_counted_once(front: Front, known: Person) -> None:
    def left() -> int:
        return int(known.post("/jobs", json=NEW).headers["RateLimit-Remaining"])

    before = left()
    front.play.all("update members set role = 'owner' where user_id = %s returning 1", known.user)
    assert left() == before - 1


def test_who_has_joined_another_tenant_can_work_there_at_once(front: Front, known: Person) -> None:
    known.tenant = front.play.add_tenant()
    assert post(known) == (404, "tenant_not_found")
    front.join(known.user, known.tenant)
    assert post(known) == (202, None)
    assert front.play.one("select count(*) from jobs where tenant_id = %s", known.tenant) == 1


def test_a_pipeline_that_was_changed_is_run_as_it_is_now(front: Front, known: Person) -> None:
    front.play.all(
        "update pipelines set graph = (select graph from pipelines where name = 'one') where name = 'line' returning 1"
    )
    assert post(known) == (202, None)
    assert front.play.one("select count(distinct graph) from jobs") == 2


def test_a_pipeline_that_is_gone_is_unknown_at_once(front: Front, known: Person) -> None:
    front.play.all("update pipelines set retired_at = now() where name = 'line' returning 1")
    assert post(known)[1] == "unknown_pipeline"


def test_another_call_asks_as_ever(front: Front, known: Person) -> None:
    front.play.all("delete from members where user_id = %s returning 1", known.user)
    assert error_code(known.get("/jobs")) == "no_tenant"


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquaintances, "_MOST", 3)
    users = [uuid4() for _ in range(4)]
    memory = Acquaintances()
    for user in users:
        memory.note(user, "line", [])
    assert [memory.find(user, "line") for user in users] == [None, None, None, []]
    assert memory.find(users[3], "other") is None
