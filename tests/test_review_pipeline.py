"""The review pipeline: its steps called one by one, and the whole of it with a real worker and decisions over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from api_play import Front, Person, make_settings
from flask import Flask
from pydantic import ValidationError
from test_manuscript_steps import Desk, again, take
from worker_process import House, open_house

from api import create_app
from api.house import house_of
from tasks import ledger
from tasks.analysis.categories import categorise
from tasks.analysis.chapter import analyze_chapter
from tasks.analysis.fillers import FILLERS
from tasks.analysis.keywords import find_keywords
from tasks.analysis.survey import Survey, survey
from tasks.documents.extract import choose_engine
from tasks.errors import Permanent, Transient
from tasks.pipeline import Decision, Document
from tasks.pipelines import declared
from tasks.pipelines import review as steps
from tasks.pipelines.review import ReviewParams

TALK = '"The ferry is late," said Anna. "The ferry is always late," Paul replied, and the harbour was grey.\n\n'
MANUAL = "The pump moves water from the lower tank to the upper tank. Open the valve before the pump is started.\n\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(desk: Desk, document: Document, decision: Decision | None = None, **params: Any) -> steps.Exported:
    """Every step in its order, each output through JSON as between two processes."""
    validate = again(steps.validate(document, desk))
    extract = again(steps.extract(document, validate, desk))
    analyse = again(steps.analyse(extract, ReviewParams(**params), desk))
    found = again(steps.categorise(document, validate, extract, analyse, desk))
    decided = decision or Decision(decision="approved", comment="", by=uuid4())
    return again(steps.export(again(steps.finalise(found, decided, desk)), desk))


def measured(text: str, language: str = "auto") -> Survey:
    return survey([analyze_chapter(text, language=language)], 10)


def value(found: Survey, name: str) -> str | None:
    return next((category.value for category in categorise(found) if category.name == name), None)


# Steps ---------------------------------------------------------------------------------------------


def test_the_graph_is_the_review_workflow() -> None:
    graph = steps.review.graph()
    nodes = {node["name"]: node for node in graph["steps"]}
    assert list(nodes) == ["validate", "extract", "analyse", "categorise", "approval", "finalise", "export"]
    assert [name for name, node in nodes.items() if node["gate"]] == ["approval"]
    assert nodes["approval"]["expires_s"] == 90 * 86_400
    assert set(nodes["finalise"]["after"]) == {"categorise", "approval"}
    assert {"docx", "pdf", "txt", "md", "epub", "odt", "rtf", "html"} <= set(graph["accepts"])
    assert declared()["review"] is steps.review


def test_the_sample_story_is_summed_up_and_put_on_record(desk: Desk, sample: Path) -> None:
    by = uuid4()
    decision = Decision(decision="approved", comment="Ready | *print* it.", by=by)
    result = run(desk, take(desk, sample.read_bytes(), "md", "The Lamplighter's Ledger"), decision)
    assert list(desk.artifacts) == result.artifacts == ["summary.md", "summary.json", "record.md", "record.json"]
    assert result.categories == {"form": "fiction", "length": "novelette", "reading": "very easy"}
    assert (result.language, result.words, result.keywords[0]) == ("en", 8182, "lamp")
    record = json.loads(desk.artifacts["record.json"])
    assert record["decision"] == {
        "decision": "approved", "comment": "Ready | *print* it.", "by": str(by), "edits": {},
    }  # fmt: skip
    assert (record["fields"]["title"], record["fields"]["categories"]) == (
        "The Lamplighter's Ledger", result.categories,
    )  # fmt: skip
    assert record["summary"] == json.loads(desk.artifacts["summary.json"])
    assert [person["name"] for person in record["summary"]["survey"]["people"]][:3] == ["Maren", "Ines", "Tobias Quill"]
    page = desk.artifacts["record.md"].decode()
    assert page.startswith("# The Lamplighter's Ledger\n")
    assert f"| By | {by} |" in page
    assert "| Comment | Ready \\| \\*print\\* it. |" in page
    assert "That night she lit all forty-one." in page


def test_a_second_run_writes_the_same_bytes(desk: Desk, sample: Path) -> None:
    document, decision = take(desk, sample.read_bytes(), "md"), Decision(decision="approved", comment="", by=None)
    run(desk, document, decision)
    first = dict(desk.artifacts)
    run(desk, document, decision)
    assert desk.artifacts == first


def test_every_number_says_how_it_was_measured_and_every_category_its_rule(desk: Desk) -> None:
    run(desk, take(desk, (TALK * 20).encode()))
    summary = json.loads(desk.artifacts["summary.json"])
    assert set(summary["how"]) == {
        "language", "words", "dialogue", "ease", "keywords", "people", "openings", "categories",
    }  # fmt: skip
    for category in summary["categories"]:
        assert category["because"].endswith(".")
        assert category["rule"].endswith(".")
        assert category["value"] in category["rule"]
    page = desk.artifacts["summary.md"].decode()
    assert all(text in page for text in summary["how"].values())


def test_first_lines_stand_in_the_text_word_for_word_and_an_invented_one_stops_it(
    desk: Desk, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sample.read_text(encoding="utf-8")
    run(desk, take(desk, text.encode()))
    openings = json.loads(desk.artifacts["summary.json"])["survey"]["openings"]
    assert len(openings) == 5
    assert all(opening["quote"]["text"] in text for opening in openings)

    def invent(parts: Any, most: int) -> Survey:
        found = survey(parts, most)
        found.openings[0].quote.text = "Nobody wrote this."
        return found

    monkeypatch.setattr(steps, "survey", invent)
    with pytest.raises(Permanent, match="quote_not_found"):
        run(desk, take(desk, text.encode()))


def test_first_lines_can_be_left_out(desk: Desk, sample: Path) -> None:
    run(desk, take(desk, sample.read_bytes(), "md"), quotes=False, keywords=3)
    found = json.loads(desk.artifacts["summary.json"])["survey"]
    assert (found["openings"], len(found["keywords"])) == ([], 3)
    assert b"First lines" not in desk.artifacts["summary.md"]


def test_what_is_in_a_document_cannot_become_markup(desk: Desk) -> None:
    run(desk, take(desk, b"[x](https://e.example) <script>alert(1)</script> opens it. " * 9, title="<b>| *A*"))
    page = desk.artifacts["record.md"].decode()
    assert page.startswith("# &lt;b&gt;\\| \\*A\\*\n")
    assert "<script" not in page
    assert "://" not in page


def test_a_file_that_is_not_what_was_uploaded_is_tried_again(desk: Desk) -> None:
    document = take(desk, b"Once upon a time.")
    desk.path(document.blob).write_bytes(b"Once upon a")
    with pytest.raises(Transient, match="file_differs"):
        steps.validate(document, desk)


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [(b"%PDF-1.7 a text it is not", "txt", "type_mismatch"), (b"\x00\x01\x02\x03" * 99, "txt", "not_text")],
)
def test_a_file_of_another_kind_fails_before_anything_reads_it(desk: Desk, data: bytes, kind: str, code: str) -> None:
    with pytest.raises(Permanent, match=code):
        steps.validate(take(desk, data, kind), desk)


def test_a_file_without_words_fails_with_a_sentence(desk: Desk) -> None:
    with pytest.raises(Permanent, match="no_text") as failure:
        run(desk, take(desk, b"12345 !!"))
    assert failure.value.message == "We found no text in this file."


@pytest.mark.parametrize("params", [{"language": "xx"}, {"keywords": -1}, {"keywords": 101}, {"more": 1}])
def test_params_outside_their_bounds_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ReviewParams.model_validate(params)


def test_after_a_killed_parser_the_safest_one_reads_pdfs() -> None:
    asked = [("pdf", 1, None), ("pdf", 2, "parse_crashed"), ("pdf", 3, "parse_timeout"), ("pdf", 2, "worker_lost")]
    assert [choose_engine(*one) for one in asked] == [None, "pypdf", "pypdf", None]
    assert choose_engine("docx", 2, "parse_crashed") is None


# Measures and rules --------------------------------------------------------------------------------


def test_talk_with_speakers_is_fiction_and_a_manual_is_not() -> None:
    assert value(measured(TALK * 20), "form") == "fiction"
    assert value(measured(MANUAL * 20), "form") == "non-fiction"
    assert value(measured(TALK), "form") == value(measured(MANUAL), "form") == "unclear"


def test_talk_without_anybody_who_talks_is_unclear() -> None:
    text = 'The label "keep dry" and the label "this side up" are on the box.\n\n' * 20
    assert value(measured(text), "form") == "unclear"


def test_the_points_of_a_list_are_not_taken_for_talk() -> None:
    listed = "- The pump moves water.\n\n- The valve opens before the pump starts and closes when it stops.\n\n" * 20
    assert measured(listed).dialogue_share is None
    assert value(measured(listed), "form") == "non-fiction"


def test_in_a_language_we_do_not_know_the_form_is_not_guessed() -> None:
    assert value(measured(TALK * 20, "other"), "form") == value(measured(MANUAL * 20, "other"), "form") == "unclear"


def test_where_names_are_not_known_talk_alone_has_to_tell_and_be_clear() -> None:
    assert value(measured(TALK * 20, "de"), "form") == "fiction"
    assert value(measured(MANUAL * 20, "de"), "form") == "non-fiction"
    assert value(measured((TALK + MANUAL * 5) * 3, "de"), "form") == "unclear"


def test_length_has_its_own_names_for_stories() -> None:
    assert value(measured(TALK * 20), "length") == "flash fiction"
    assert value(measured(TALK * 80), "length") == "short story"
    assert value(measured(MANUAL * 20), "length") == "note"
    assert value(measured(MANUAL * 50), "length") == "article"


def test_a_text_too_short_for_the_formula_has_no_reading_level() -> None:
    assert value(measured(MANUAL), "reading") is None
    assert value(measured(MANUAL * 20), "reading") == "very easy"


def test_keywords_are_counted_and_filtered_as_the_page_says() -> None:
    counts = {"tank": 6, "tanks": 4, "which": 50, "anna": 20, "anna's": 5, "the": 100, "valve": 2, "gas": 9, "glass": 3}
    found = find_keywords(counts, "en", ["Anna"], 10)
    assert [(word.word, word.times) for word in found] == [("tank", 10), ("glass", 3)]
    assert found[0].per_10_000 == round(10_000 * 10 / sum(counts.values()), 1)
    assert [word.word for word in find_keywords(counts, "en", ["Anna"], 1)] == ["tank"]


def test_words_of_grammar_are_known_for_every_language_that_is_told() -> None:
    assert set(FILLERS) == {"en", "de", "fr", "es", "it", "pt", "nl"}
    for language, words in FILLERS.items():
        assert len(words) > 100, language
        assert min(map(len, words)) >= 4, language


def test_novels_are_told_from_pages_about_software(desk: Desk, corpora: Path) -> None:
    for name in ("treasure-island", "the-time-machine", "heart-of-darkness"):
        data = (corpora / "novels" / f"{name}.txt").read_bytes()
        assert run(desk, take(desk, data)).categories["form"] == "fiction", name
    root = Path(__file__).resolve().parent.parent
    for page in ("README.md", "docs/api.md", "docs/deploy.md", "LICENSE"):
        assert run(desk, take(desk, (root / page).read_bytes(), "md")).categories["form"] == "non-fiction", page


# With a real worker --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A worker for the pipelines of the house."""
    with open_house(module_database_url, tmp_path_factory.mktemp("house")) as house:
        house.start(pipelines="tasks.pipelines")
        ledger.publish(house.play.connection, declared().values(), "tests")
        yield house


@pytest.fixture(scope="module")
def open_app(house: House) -> Iterator[Flask]:
    """An API on the worker's database and storage."""
    made = create_app(make_settings(house.url, house.folder / "storage"))
    yield made
    house_of(made).close()


@pytest.fixture
def writer(house: House, open_app: Flask) -> Person:
    """The owner of the tenant."""
    return Person(open_app, house.play.user)


@pytest.fixture
def reviewer(house: House, open_app: Flask) -> Person:
    """A reviewer of the same tenant."""
    user = uuid4()
    Front(open_app, house_of(open_app).settings, house.play).join(user, house.play.tenant, "reviewer")
    return Person(open_app, user)


def upload(house: House, writer: Person, text: str) -> UUID:
    """A document, and its job, which waits for a person when this returns."""
    answer = writer.upload(text.encode(), "harbour.txt", "?pipeline=review", title="The Harbour")
    assert answer.status_code == 201
    job = UUID(answer.get_json()["job"]["id"])
    await_person(house, job)
    return job


def await_person(house: House, job: UUID) -> None:
    house.follower.until(lambda: house.play.job(job)["status"] in ("awaiting_review", "failed"), within=60)
    assert house.play.job(job)["status"] == "awaiting_review", house.play.failures(job)


def link_to_review(writer: Person, job: UUID) -> str:
    return str(writer.get(f"/jobs/{job}").get_json()["links"]["review"])


def download(house: House, person: Person, job: UUID, name: str) -> Any:
    (row,) = [row for row in house.play.artifacts(job) if row["name"] == name]
    url = person.get(f"/artifacts/{row['id']}?redirect=0").get_json()["url"]
    return person.app.test_client().get(url).get_data()


def test_from_upload_to_gate_to_approval_to_the_record(house: House, writer: Person, reviewer: Person) -> None:
    job = upload(house, writer, TALK * 20)
    (waiting,) = reviewer.get(f"/review?document_id={house.play.job(job)['document_id']}").get_json()["reviews"]
    assert (waiting["document_title"], waiting["step"]) == ("The Harbour", "approval")
    assert [artifact["name"] for artifact in waiting["artifacts"]] == ["summary.json", "summary.md"]
    assert b"# The Harbour" in download(house, reviewer, job, "summary.md")
    edits = {"title": "The *Old* Harbour", "keywords": ["harbour"]}
    answer = reviewer.post(f"/review/{waiting['id']}/approve", json={"comment": "Ferries and all.", "edits": edits})
    assert answer.status_code == 200
    diff = answer.get_json()["edits"]
    assert diff["title"] == {"from": "The Harbour", "to": "The *Old* Harbour"}
    assert (diff["keywords"]["to"], len(diff["keywords"]["from"]) > 1) == (["harbour"], True)
    assert house.finish(job) == ["completed"]
    house.assert_whole(job)
    assert {row["name"] for row in house.play.artifacts(job)} == {
        "summary.md", "summary.json", "record.md", "record.json",
    }  # fmt: skip
    record = json.loads(download(house, writer, job, "record.json"))
    assert record["decision"] == {
        "decision": "approved", "comment": "Ferries and all.", "by": str(reviewer.user), "edits": diff,
    }  # fmt: skip
    assert record["summary"]["categories"][0]["value"] == "fiction"
    assert (record["fields"]["title"], record["fields"]["keywords"]) == ("The *Old* Harbour", ["harbour"])
    page = download(house, writer, job, "record.md").decode()
    assert page.startswith("# The \\*Old\\* Harbour\n")
    assert "| Title | The Harbour | The \\*Old\\* Harbour |" in page
    (known,) = writer.get("/export?pipeline=review").get_json()["documents"]
    told = ("title", "keywords", "filename", "job_id", "decision", "comment", "decided_by")
    assert [known[name] for name in told] == [
        "The *Old* Harbour", ["harbour"], "harbour.txt", str(job), "approved", "Ferries and all.", str(reviewer.user),
    ]  # fmt: skip
    assert known["categories"] == record["fields"]["categories"]
    assert "words" in known["metadata"]
    assert writer.get(f"/review/{waiting['id']}").get_json()["fields"]["title"] == "The *Old* Harbour"


def test_a_rejected_document_leaves_no_record(house: House, writer: Person, reviewer: Person) -> None:
    job = upload(house, writer, TALK * 21)
    assert reviewer.post(f"{link_to_review(writer, job)}/reject", json={"comment": "Not ours."}).status_code == 200
    assert house.play.job(job)["status"] == "failed"
    assert writer.get(f"/jobs/{job}").get_json()["error"]["message"] == "A reviewer rejected it: Not ours."
    assert {row["name"] for row in house.play.artifacts(job)} == {"summary.md", "summary.json"}
    house.assert_whole(job)


def test_a_reprocessed_document_is_measured_again_and_asked_about_again(
    house: House, writer: Person, reviewer: Person
) -> None:
    job = upload(house, writer, TALK * 22)
    first = link_to_review(writer, job)
    assert reviewer.get(first).get_json()["reprocess_from"] == ["validate", "extract", "analyse", "categorise"]
    answer = reviewer.post(f"{first}/reprocess", json={"from_step": "analyse", "comment": "Count again."})
    assert answer.get_json()["status"] == "reprocessed"
    await_person(house, job)
    second = link_to_review(writer, job)
    assert second != first
    assert [house.play.run(job, step)["attempt"] for step in ("validate", "extract")] == [1, 1]
    done = [event["step"] for event in house.play.events(job) if event["kind"] == "step_completed"]
    assert done == ["validate", "extract", "analyse", "categorise", "analyse", "categorise"]
    assert reviewer.post(f"{second}/approve", json={}).status_code == 200
    assert house.finish(job) == ["completed"]
    assert len(house.play.artifacts(job)) == 4
    assert house.play.drift() == []
