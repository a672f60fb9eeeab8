"""Artifacts over HTTP: listed as they appear, downloaded by links that need no token and soon expire."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_play import Front, Person, error_code, new_job_id, submit_job

from api.house import house_of

REPORT = "# Bericht\n\nZwölf Kapitel.\n".encode()


def make_artifacts(front: Front, person: Person, *names: str) -> list[dict[str, Any]]:
    """A job with artifacts of these names, as its list shows them."""
    job = submit_job(front, person)["id"]
    digest = hashlib.sha256(REPORT).hexdigest()
    source = front.settings.storage_path / "report"
    source.write_bytes(REPORT)
    house_of(front.app).storage.put(front.play.tenant, digest, source)
    source.unlink()
    front.play.beat(took_from=["llm"])
    made = [{"name": name, "media_type": "text/markdown", "bytes": len(REPORT), "sha256": digest} for name in names]
    front.play.complete(front.play.begin(), 1, artifacts=made)
    return list(person.get(f"/jobs/{job}/artifacts").get_json()["artifacts"])


def fetch(front: Front, url: str, **headers: str) -> Any:
    """Follow a link without any token."""
    return front.app.test_client().get(urlsplit(url).path, headers=headers)


def test_artifacts_appear_while_the_job_runs(front: Front) -> None:
    person = front.person("viewer")
    owner = front.person()
    job = submit_job(front, owner)["id"]
    assert person.get(f"/jobs/{job}/artifacts").get_json() == {"artifacts": [], "next_cursor": None}
    front.play.all("delete from jobs where id = %s returning 1", job)
    front.play.all("delete from procrastinate.procrastinate_jobs returning 1")
    (artifact,) = make_artifacts(front, owner, "report.md")
    assert (artifact["name"], artifact["step"], artifact["item"], artifact["bytes"]) == (
        "report.md",
        "first",
        None,
        len(REPORT),
    )
    assert artifact["links"]["self"] == f"/api/v1/artifacts/{artifact['id']}"


def test_a_list_of_artifacts_is_paged(front: Front) -> None:
    person = front.person()
    made = make_artifacts(front, person, "a", "b", "c")
    path = f"/jobs/{made[0]['job_id']}/artifacts?limit=2"
    first = person.get(path).get_json()
    second = person.get(f"{path}&cursor={first['next_cursor']}").get_json()
    assert first["artifacts"] + second["artifacts"] == made
    assert second["next_cursor"] is None


def test_an_artifact_is_a_redirect_to_a_link_that_needs_no_token(front: Front) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "Bericht für Zoë.md")
    answer = person.get(f"/artifacts/{artifact['id']}")
    assert answer.status_code == 302
    file = fetch(front, answer.headers["Location"])
    assert (file.status_code, file.data) == (200, REPORT)
    assert file.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert file.headers["Content-Disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''Bericht%20f%C3%BCr%20Zo%C3%AB.md" in file.headers["Content-Disposition"]
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in file.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("query", "accept"), [("?redirect=0", "*/*"), ("", "application/json")])
def test_who_wants_json_gets_the_link_instead(front: Front, query: str, accept: str) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "report.md")
    link = person.get(f"/artifacts/{artifact['id']}{query}", headers={"Accept": accept}).get_json()
    assert (link["expires_in"], link["name"], link["bytes"]) == (300, "report.md", len(REPORT))
    assert fetch(front, link["url"]).data == REPORT


def test_a_part_of_a_file_can_be_asked_for(front: Front) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "report.md")
    url = person.get(f"/artifacts/{artifact['id']}").headers["Location"]
    part = fetch(front, url, Range="bytes=2-8")
    assert (part.status_code, part.data) == (206, REPORT[2:9])
    beyond = fetch(front, url, Range="bytes=900-")
    assert (beyond.status_code, error_code(beyond)) == (416, "range_invalid")
    whole = fetch(front, url)
    assert fetch(front, url, **{"If-None-Match": whole.headers["ETag"]}).status_code == 304


def test_a_link_expires(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "report.md")
    url = person.get(f"/artifacts/{artifact['id']}").headers["Location"]
    monkeypatch.setattr(house_of(front.app).storage, "_ttl_s", -1)
    answer = fetch(front, url)
    assert (answer.status_code, error_code(answer)) == (410, "link_expired")


def test_a_link_that_was_changed_or_made_up_leads_nowhere(front: Front) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "report.md")
    url = person.get(f"/artifacts/{artifact['id']}").headers["Location"]
    middle = len(url) // 2
    for wrong in (url[:-1], url[:middle] + ("A" if url[middle] != "A" else "B") + url[middle + 1 :], url + "x"):
        answer = fetch(front, wrong)
        assert (answer.status_code, error_code(answer)) == (404, "link_invalid")


def test_bytes_that_are_gone_are_said_to_be_gone(front: Front) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "report.md")
    url = person.get(f"/artifacts/{artifact['id']}").headers["Location"]
    house_of(front.app).storage.delete(front.play.tenant, artifact["sha256"])
    answer = fetch(front, url)
    assert (answer.status_code, error_code(answer)) == (404, "file_not_found")


def test_an_unknown_artifact_is_not_found(front: Front) -> None:
    answer = front.person().get(f"/artifacts/{new_job_id()}")
    assert (answer.status_code, error_code(answer)) == (404, "artifact_not_found")


@pytest.mark.parametrize("query", ["?redirect=2", "?redirect=yes"])
def test_a_redirect_is_on_or_off(front: Front, query: str) -> None:
    answer = front.person().get(f"/artifacts/{new_job_id()}{query}")
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


def test_links_lead_nowhere_when_bytes_are_stored_elsewhere(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    person = front.person()
    (artifact,) = make_artifacts(front, person, "report.md")
    url = person.get(f"/artifacts/{artifact['id']}").headers["Location"]
    monkeypatch.setattr(house_of(front.app), "storage", object())
    answer = fetch(front, url)
    assert (answer.status_code, error_code(answer)) == (404, "link_invalid")
