"""A real worker: every shape of pipeline ends as it should, and nothing that a step does harms its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_process import House, open_house


@pytest.fixture(scope="module")
def house(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One worker for all tests of this module."""
    with open_house(module_database_url, tmp_path_factory.mktemp("house")) as house:
        house.start(worker_concurrency=32)
        yield house


def run(house: House, pipeline: str, **request: Any) -> Any:
    """Submit and wait for the end; the job's id."""
    job = house.play.submit(pipeline, **request)
    house.finish(job)
    house.assert_whole(job)
    return job


def value(house: House, job: Any, step: str) -> Any:
    return house.play.one("select value from step_results where id = %s", house.play.run(job, step)["result_id"])


def stored(house: House, tenant: object, sha256: str) -> Path:
    return house.folder / "storage" / str(tenant) / sha256[:2] / sha256


@pytest.mark.parametrize(
    ("pipeline", "width", "last", "result"),
    [
        ("one", 4, "only", 4),
        ("line", 5, "third", 12),
        ("fan", 0, "total", 0),
        ("fan", 1, "total", 0),
        ("fan", 25, "total", 600),
        ("diamond", 4, "bottom", 30),
        ("beside", 4, "gathered", 66),
    ],
)
def test_it_completes_with_the_right_result(house: House, pipeline: str, width: int, last: str, result: int) -> None:
    job = run(house, pipeline, params={"width": width})
    assert house.play.job(job)["status"] == "completed"
    assert value(house, job, last) == {"value": result}


def test_a_thousand_items_are_done_once_each(house: House) -> None:
    job = run(house, "fan", params={"width": 1000})
    assert value(house, job, "total") == {"value": 999_000}
    assert {run["attempt"] for run in house.play.runs(job)} == {1}
    assert house.play.kinds(job).count("step_completed") == 1002


def test_a_failing_item_fails_the_job_with_its_code(house: House) -> None:
    job = run(house, "fan", params={"width": 5, "fail_at": 3})
    row = house.play.job(job)
    assert (row["status"], row["error_code"]) == ("failed", "odd_one_out")
    assert row["error_message"] == "This item cannot be doubled."


def test_a_step_that_stumbles_is_tried_again(house: House) -> None:
    job = run(house, "stumbling", params={"width": 2})
    assert value(house, job, "stumble") == {"value": 3}
    assert house.play.kinds(job).count("step_retrying") == 2


def test_a_step_that_stumbles_too_often_fails(house: House) -> None:
    job = run(house, "stumbling", params={"width": 9})
    assert (house.play.job(job)["status"], house.play.job(job)["error_code"]) == ("failed", "not_yet")
    assert house.play.run(job, "stumble")["attempt"] == 3


def test_a_document_is_read_in_a_child_and_its_artifact_is_stored(house: House) -> None:
    content = "It was a dark and stormy night."
    document = house.play.add_document(content)
    storage = stored(house, house.play.tenant, house.play.one("select sha256 from documents where id = %s", document))
    storage.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(content)
    job = run(house, "reading", document_id=document, params={})
    assert house.play.job(job)["status"] == "completed"
    (artifact,) = house.play.artifacts(job)
    assert (artifact["name"], artifact["step"]) == ("A story.txt", "publish")
    assert stored(house, house.play.tenant, artifact["sha256"]).read_text() == content.upper()
    assert [event["message"] for event in house.play.events(job) if event["kind"] == "progress"][-1] == "there"


def test_a_document_whose_bytes_are_gone_fails_with_a_sentence(house: House) -> None:
    job = run(house, "reading", document_id=house.play.add_document("never stored"), params={})
    row = house.play.job(job)
    assert (row["status"], row["error_code"]) == ("failed", "file_not_found")


# Confinement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("crash", "parse_crashed"),
        ("exit", "parse_crashed"),
        ("hang", "parse_timeout"),
        ("eat", "parse_out_of_memory"),
        ("raise", "parse_error"),
    ],
)
def test_a_step_that_ends_its_child_costs_its_attempts_and_nothing_else(house: House, way: str, code: str) -> None:
    job = house.play.submit("doomed", params={"way": way})
    neighbours = [house.play.submit("line"), house.play.submit("doomed", params={"gate": way})]
    assert house.finish(job, *neighbours) == ["failed", "completed", "completed"]
    row = house.play.job(job)
    assert row["error_code"] == code
    assert row["error_message"].endswith(".")
    assert [failure["attempt"] for failure in house.play.failures(job)] == [1, 2]
    house.assert_whole(job, *neighbours)
    assert house.workers[0].alive


def test_what_a_step_said_while_failing_is_for_the_operator_only(house: House) -> None:
    job = run(house, "doomed", params={"way": "raise", "gate": "x"})
    assert "a secret of the operator" in house.play.failures(job)[-1]["detail"]
    for rows in (house.play.events(job), house.play.runs(job), [house.play.job(job)]):
        assert "secret" not in str(rows)
    assert not house.workers[0].says("a secret of the operator")


# Odd values -------------------------------------------------------------------------------------------------


def test_large_values_live_in_storage_under_a_pointer(house: House) -> None:
    job = run(house, "large", params={"size": 9000})
    assert house.play.job(job)["status"] == "completed"
    assert value(house, job, "count") == {"value": 3 * 9001 + 2}
    for step in ("pieces", "join"):
        result = house.play.all("select * from step_results where id = %s", house.play.run(job, step)["result_id"])[0]
        assert result["value"] is None
        assert stored(house, house.play.tenant, result["blob"]["sha256"]).stat().st_size == result["blob"]["bytes"]
    pointers = [run["item_value"] for run in house.play.runs(job, "grow")]
    assert {tuple(pointer) for pointer in pointers} == {("$blob",)}
    assert house.play.one("select max(octet_length(value::text)) from step_results where value is not null") <= 8192


def test_small_values_with_a_nul_survive_in_storage(house: House) -> None:
    job = run(house, "large", params={"size": 3})
    result = house.play.all("select * from step_results where id = %s", house.play.run(job, "join")["result_id"])[0]
    assert result["blob"] is not None
    assert value(house, job, "count") == {"value": 3 * 4 + 2}
    assert [run["item_value"] for run in house.play.runs(job, "grow")] == [
        {"text": "aaa"},
        {"text": "bbb"},
        {"text": "ccc"},
    ]


def test_odd_progress_and_a_file_named_twice_do_not_ruin_a_step(house: House) -> None:
    job = run(house, "noisy", params={})
    assert house.play.job(job)["status"] == "completed"
    last = [event for event in house.play.events(job) if event["kind"] == "progress"][-1]
    assert last["data"]["current"] / last["data"]["total"] == pytest.approx(0.9)
    (artifact,) = house.play.artifacts(job)
    assert stored(house, house.play.tenant, artifact["sha256"]).read_bytes() == b"second"


@pytest.mark.parametrize(("pipeline", "code"), [("muttering", "odd_words"), ("grumbling", "step_error")])
def test_odd_words_in_an_error_do_not_hide_it(house: House, pipeline: str, code: str) -> None:
    job = run(house, pipeline, params={})
    assert (house.play.job(job)["status"], house.play.job(job)["error_code"]) == ("failed", code)
    assert len(house.play.failures(job)) == 1


# Paying once --------------------------------------------------------------------------------------------------


def test_the_same_work_is_done_once_for_a_tenant(house: House) -> None:
    params = {"width": 7, "mark": "reuse"}
    first, second = (run(house, "fan", params=params, idempotency_key=key) for key in ("reuse 1", "reuse 2"))
    assert house.play.kinds(first).count("reused") == 0
    assert house.play.kinds(second).count("reused") == 9
    assert value(house, second, "total") == value(house, first, "total")
    fresh = run(house, "fan", params=params, fresh=True)
    assert house.play.kinds(fresh).count("reused") == 0


def test_large_results_are_reused_too(house: House) -> None:
    jobs = [run(house, "large", params={"size": 9500}, idempotency_key=f"large {n}") for n in range(2)]
    assert [house.play.kinds(job).count("reused") for job in jobs] == [0, 6]
