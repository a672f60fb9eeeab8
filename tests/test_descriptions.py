"""Describing: what a step finds out about a document is part of its result, and written with that or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from pydantic import ValidationError
from test_ledger_settle import outcome, settle
from waiting import until
from worker_process import House, open_house

from tasks.engine.inputs import MOST_SEARCHED, read_text
from tasks.pipeline import Description

TOLD: dict[str, Any] = {
    "summary": "A story about a lamp.",
    "keywords": ["lamp", "ferry"],
    "categories": {"form": "fiction"},
    "language": "en",
    "metadata": {"words": 8182, "author": None},
}


def document(play: Play, id: UUID) -> dict[str, Any]:
    (row,) = play.all("select * from documents where id = %s", id)
    return row


def job_of(play: Play, document: UUID) -> UUID:
    return play.submit("reading", document_id=document, params={})


def words_of(play: Play, document: UUID, *words: str) -> list[bool]:
    """Which of the words it is found by."""
    query: LiteralString = (
        "select d.words @@ plainto_tsquery('simple', w) as there from document_words d, unnest(%s::text[]) w"
        " where d.document_id = %s"
    )
    return [row["there"] for row in play.all(query, list(words), document)]


def test_a_description_is_written_when_its_step_completes(play: Play) -> None:
    id = play.add_document()
    job = job_of(play, id)
    before = document(play, id)
    assert (before["summary"], before["keywords"], before["described_at"]) == ("", [], None)
    assert play.complete(play.begin(), description=TOLD)
    row = document(play, id)
    assert {name: row[name] for name in TOLD} == TOLD
    assert (row["described_by"], row["status"], row["finalised_at"]) == (job, "uploaded", None)
    assert row["described_at"] is not None
    assert play.drift() == []


def test_what_a_description_leaves_out_stays(play: Play) -> None:
    id = play.add_document()
    job_of(play, id)
    play.complete(play.begin(), description=TOLD, text="A whale.")
    play.complete(play.begin(), description={"summary": "Shorter."})
    row = document(play, id)
    assert (row["summary"], row["keywords"], row["language"]) == ("Shorter.", ["lamp", "ferry"], "en")
    assert words_of(play, id, "whale", "shorter", "lamp", "about") == [True, True, True, False]


def test_a_title_that_a_reviewer_gave_replaces_the_one_it_was_uploaded_with(play: Play) -> None:
    id = play.add_document()
    job_of(play, id)
    play.complete(play.begin(), description=TOLD)
    assert document(play, id)["title"] == "A story"
    play.complete(play.begin(), description={"title": "The Whale", "final": True})
    row = document(play, id)
    assert (row["title"], row["summary"], row["status"]) == ("The Whale", TOLD["summary"], "finalised")
    assert words_of(play, id, "whale", "lamp") == [True, True]


def test_a_stale_attempt_describes_nothing(play: Play) -> None:
    id = play.add_document()
    job_of(play, id)
    stale = play.begin()
    play.fail(stale, retry_in=0)
    assert not play.complete(stale, description=TOLD, text="A whale.")
    assert document(play, id)["summary"] == ""
    assert words_of(play, id, "whale") == [False]


def test_a_result_that_is_used_again_describes_again(play: Play) -> None:
    first, second = play.add_document(), play.add_document()
    job_of(play, first)
    text = {"sha256": "a" * 64, "bytes": 8}
    play.complete(play.begin(), description=TOLD | {"text": text}, text="A whale.")
    again = job_of(play, second)
    (work,) = [work for work in play.begin_all() if work["job"] == str(again)]
    assert work["reuse"]["text"] == text
    play.complete(work, reuse=work["reuse"]["result"], text="A whale.")
    row = document(play, second)
    assert (row["summary"], row["described_by"]) == (TOLD["summary"], again)
    assert words_of(play, second, "whale", "lamp") == [True, True]


def test_a_final_description_stays_until_another_final_one(play: Play) -> None:
    id = play.add_document()
    job = job_of(play, id)
    play.complete(play.begin(), description=TOLD | {"final": True})
    row = document(play, id)
    assert (row["status"], row["finalised_by"], row["finalised_at"]) == ("finalised", job, row["described_at"])
    play.complete(play.begin(), description={"summary": "Found anew by nobody's leave."}, text="A whale.")
    assert document(play, id) == row
    assert words_of(play, id, "whale") == [False]
    later = play.submit("reading", document_id=id, params={}, fresh=True)
    play.complete(play.begin(), description={"summary": "Approved again.", "final": True})
    row = document(play, id)
    assert (row["summary"], row["finalised_by"]) == ("Approved again.", later)


def test_a_job_without_a_document_describes_nothing(play: Play) -> None:
    job = play.submit("line")
    assert play.complete(play.begin(), description=TOLD)
    assert play.run(job, "first")["status"] == "completed"


def test_a_text_of_more_words_than_fit_does_not_fail_its_step(play: Play) -> None:
    id = play.add_document()
    job = job_of(play, id)
    text = "beginning " + " ".join(f"{number:x}{'w' * 20}" for number in range(45_000)) + " end"
    assert play.complete(play.begin(), description=TOLD, text=text[:MOST_SEARCHED])
    assert play.run(job, "measure")["status"] == "completed"
    assert words_of(play, id, "beginning", "lamp", "end") == [True, True, False]


def test_groups_that_describe_the_same_documents_do_not_wait_for_each_other_in_a_circle(
    real_play: Play, database_url: str
) -> None:
    """The jobs of one group come in the order of their documents, those of the other in the opposite order."""
    one, two = sorted(real_play.add_document(content) for content in ("one", "two"))
    works = {job_of(real_play, id): id for id in (one, two)}
    for id in (two, one):
        works[real_play.submit("reading", document_id=id, params={}, idempotency_key=str(id))] = id
    begun = {work["job"]: work for work in real_play.begin_all()}
    told = [
        outcome("complete", begun[str(job)], result={"digest": "d" * 64, "value": 1, "description": TOLD})
        for job in sorted(works)
    ]

    def settle_later(*outcomes: dict[str, Any]) -> list[bool]:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            return settle(real_play.on(connection), *outcomes)

    waiting: LiteralString = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    with psycopg.connect(database_url) as gate, ThreadPoolExecutor(2) as hands:
        gate.execute("select from documents for no key update")
        groups = [hands.submit(settle_later, *told[:2]), hands.submit(settle_later, *told[2:])]
        until(lambda: real_play.one(waiting) == 2)
        gate.rollback()
        assert [group.result(30) for group in groups] == [[True, True], [True, True]]
    assert {row["summary"] for row in real_play.all("select summary from documents")} == {TOLD["summary"]}


# What may be said -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {"summary": "x" * 2001},
        {"keywords": ["x"] * 101},
        {"keywords": ["x" * 101]},
        {"keywords": [""]},
        {"categories": {f"n{number}": "v" for number in range(51)}},
        {"categories": {"form": ""}},
        {"language": "a language"},
        {"metadata": {"long": "x" * 9000}},
        {"metadata": {"nul": "a\0b"}},
        {"metadata": {"nan": float("nan")}},
        {"title": ""},
        {"title": "x" * 501},
        {"filename": "Names of files are not found out."},
    ],
    ids=lambda told: f"{next(iter(told))} {str(next(iter(told.values())))[:12]}",
)
def test_every_part_of_a_description_has_a_limit(told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Description(**told)


def test_characters_that_no_row_can_hold_are_dropped() -> None:
    told = Description(summary="a\0b\ud800c", keywords=("d\0e",), categories={"f\0": "\0g"})
    assert (told.summary, told.keywords, told.categories) == ("ab?c", ("de",), {"f": "g"})


def test_a_text_is_read_up_to_its_limit_whatever_its_bytes_are(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"a\0b\xff" + "é".encode() * (2 * MOST_SEARCHED))
    text = read_text(file)
    assert (len(text), text[:5]) == (MOST_SEARCHED, "a b�é")


# A real worker --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One worker for the tests below."""
    with open_house(module_database_url, tmp_path_factory.mktemp("house")) as house:
        house.start()
        yield house


def test_a_worker_describes_and_describes_again_from_a_result_it_finds(house: House) -> None:
    content = f"It was a dark and stormy night. {uuid4()}"
    first, second = house.play.add_document(content), house.play.add_document(content)
    put(house, first, content)
    for id in (first, second):
        job = house.play.submit("telling", document_id=id, params={})
        assert house.finish(job) == ["completed"]
        row = document(house.play, id)
        assert (row["summary"], row["keywords"]) == ("Told by a step.", ["Storm", "night"])
        assert row["described_by"] == job
        assert words_of(house.play, id, "stormy", "told", "never") == [True, True, False]
        assert house.play.statuses(job, "decide_nothing") == ["skipped"]
    assert house.play.kinds(job).count("reused") == 2
    digest = sha256(house, first)
    kept = house.play.all("select description, blobs from step_results where description is not null")
    assert [(row["description"]["text"]["sha256"], row["blobs"]) for row in kept] == [(digest, [digest])]


def sha256(house: House, id: UUID) -> str:
    return str(document(house.play, id)["sha256"])


def put(house: House, id: UUID, content: str) -> None:
    digest = sha256(house, id)
    path = house.folder / "storage" / str(house.play.tenant) / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
