"""Following a job: every event once and in order, whatever happens to the connection."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console
from scripted_api import END, Answer, Scripted, answer, frame, refuse, scripted_api, stream

from tasks.command import follow as following
from tasks.command.client import Client, Endpoint
from tasks.command.display import Bar, Lines, Standing
from tasks.command.events import Event, Frame, read_frames
from tasks.command.program import run
from tasks.errors import Refused, Unavailable


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(following, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(following, "_LONGEST_WAIT_S", 0.0)
    return


def follow_all(*answers: Answer) -> tuple[list[int], list[str], Scripted]:
    """Event numbers seen, sentences about breaks, and the server that was asked."""
    notes: list[str] = []
    with scripted_api(*answers) as api, Client(Endpoint(api.url, "t")) as client:
        seen = [event.seq for event in following.follow(client, "j", notes.append)]
    return seen, notes, api


def last_event_ids(api: Scripted) -> list[str]:
    return [headers["last-event-id"] for _, _, headers in api.requests]


def test_a_stream_is_followed_from_the_first_event_to_its_end() -> None:
    seen, notes, api = follow_all(stream(frame(1), frame(2), frame(3), END))
    assert (seen, notes) == ([1, 2, 3], [])
    assert last_event_ids(api) == ["0"]
    assert api.requests[0][1] == "/api/v1/jobs/j/stream"


def test_a_broken_connection_goes_on_where_it_was() -> None:
    first = stream(frame(1), frame(2), broken=True)
    seen, notes, api = follow_all(first, stream(frame(3), END))
    assert seen == [1, 2, 3]
    assert last_event_ids(api) == ["0", "2"]
    assert len(notes) == 1


def test_a_stream_that_just_stops_is_taken_up_again() -> None:
    seen, _, api = follow_all(stream(frame(1)), stream(frame(2), END))
    assert (seen, last_event_ids(api)) == ([1, 2], ["0", "1"])


def test_an_event_that_is_sent_again_is_shown_once() -> None:
    seen, _, _ = follow_all(stream(frame(1), frame(2)), stream(frame(1), frame(2), frame(3), END))
    assert seen == [1, 2, 3]


def test_half_an_event_at_the_end_of_a_connection_is_not_an_event() -> None:
    half = frame(2)[:-2]
    seen, _, api = follow_all(stream(frame(1), half), stream(frame(2), END))
    assert (seen, last_event_ids(api)) == ([1, 2], ["0", "1"])


def test_an_api_that_is_away_for_a_while_is_waited_for_and_told_of_once() -> None:
    away = refuse(503, "database_unavailable", "Please try again.")
    seen, notes, _ = follow_all(stream(frame(1)), away, away, away, stream(frame(2), END))
    assert seen == [1, 2]
    assert notes == ["The connection was lost; waiting for the API."]


def test_an_api_that_stays_away_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PATIENCE_S", 0.0)
    away = refuse(503, "database_unavailable", "Please try again.")
    with pytest.raises(Unavailable, match="database_unavailable"):
        follow_all(away, away, away, away)


def test_a_job_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(Refused, match="job_not_found"):
        follow_all(refuse(404, "job_not_found", "There is no such job."))


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("cancelled", 2)])
def test_watch_says_by_its_exit_code_how_the_job_ended(
    status: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    job = answer({"id": "j", "pipeline": "manuscript", "status": status, "document_id": "d", "steps": []})
    document = answer({"filename": "book.docx"})
    last = frame(2, status, status, percent=100, message="That was it.", data={"code": "too_long"})
    with scripted_api(job, document, stream(frame(1), last, END)) as api:
        assert run(["watch", "j", "--url", api.url, "--token", "t"]) == code
    out = capsys.readouterr().out
    assert status in out
    assert "Traceback" not in out


def test_a_watch_that_begins_while_the_database_is_away_waits_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    away = refuse(503, "database_unavailable", "Please try again.")
    job = answer({"id": "j", "pipeline": "line", "document_id": None, "steps": []})
    last = frame(1, "completed", "completed", percent=100)
    with scripted_api(away, away, job, stream(last, END)) as api:
        assert run(["watch", "j", "--url", api.url, "--token", "t"]) == 0
    assert "completed" in capsys.readouterr().out


def test_frames_are_read_as_the_standard_says() -> None:
    lines = [
        ": ping",
        "",
        "id: 7",
        "event: progress",
        "data: {",
        "data:}",
        "",
        "retry: 5",
        "",
        "id: 8",
        "data: unfinished",
    ]
    assert list(read_frames(lines)) == [Frame("progress", "7", "{\n}")]


def event(seq: int, kind: str, **fields: object) -> Event:
    data = {"status": fields.pop("status", "running"), "percent": fields.pop("percent", 0)}
    data |= {name: fields.pop(name) for name in ("current", "total", "code") if name in fields}
    row = {"seq": seq, "at": f"2026-11-02T10:00:{seq:02}+00:00", "kind": kind, "data": data}
    return Event.from_json(row | {"stage": "initializing", **fields})


STORY = [
    event(1, "submitted", status="queued", message="Waiting for a worker."),
    event(2, "started", message="A worker has picked it up."),
    event(3, "step_started", stage="parsing", step="extract", attempt=1),
    event(4, "progress", stage="parsing", step="extract", percent=4, message="page 9", current=9, total=90),
    event(5, "progress", stage="parsing", step="extract", percent=14, message="page 30", current=30, total=90),
    event(6, "step_completed", stage="parsing", step="extract", percent=20, current=1, total=1),
    event(7, "step_started", stage="analyzing", step="analyze", item=0, percent=20),
    event(8, "step_retrying", stage="analyzing", step="analyze", item=0, percent=20, message="It crashed.", code="x"),
    event(9, "step_completed", stage="analyzing", step="analyze", item=4, percent=25, current=1, total=9),
    event(10, "reused", stage="analyzing", step="analyze", item=1, percent=31, message="Done before."),
    event(11, "completed", stage="analyzing", status="completed", percent=100, message="Everything is done."),
]


def test_lines_tell_of_stages_tenths_and_surprises_and_of_nothing_else() -> None:
    out = io.StringIO()
    lines = Lines("book: manuscript", Console(file=out, width=200))
    for one in STORY:
        lines.show(one)
    title, *shown = out.getvalue().splitlines()
    assert title == "book: manuscript"
    assert [line[21:] for line in shown] == [
        "  0 %  initializing  Waiting for a worker.",
        "  0 %  parsing       extract",
        " 14 %  parsing       extract: page 30",
        " 20 %  parsing",
        " 20 %  analyzing     analyze 1",
        " 20 %  analyzing     analyze 1: will be tried again. It crashed.",
        " 31 %  analyzing     analyze 2: done before",
        "100 %  completed     Everything is done.",
    ]


def test_the_bar_shows_stages_percent_and_what_is_happening() -> None:
    out = io.StringIO()
    bar = Bar(
        "book: manuscript",
        ["parsing", "analyzing", "exporting"],
        Console(file=out, width=100, force_terminal=True, color_system=None),
    )
    for one in STORY[:9]:
        bar.show(one)
    shown = io.StringIO()
    Console(file=shown, width=100).print(bar)
    bar.close()
    text = shown.getvalue()
    assert "✓ initializing   ✓ parsing   ● analyzing   ○ exporting" in text
    assert "25 %" in text
    assert "analyze: 1 of 9" in text
    assert "book: manuscript" in text


def test_what_is_shown_after_closing_is_nothing() -> None:
    out = io.StringIO()
    lines = Lines("book: manuscript", Console(file=out))
    lines.close()
    lines.show(STORY[0])
    lines.note("The connection was lost.")
    assert out.getvalue() == "book: manuscript\n"


def test_the_end_is_told_in_one_sentence() -> None:
    standing = Standing()
    for one in STORY:
        standing.take(one)
    assert standing.summary() == "completed in 10.0 s; 1 step was done before"
    failed = Standing()
    failed.take(event(1, "submitted"))
    failed.take(event(3, "failed", status="failed", message="This file is encrypted.", code="pdf_encrypted"))
    assert failed.summary() == "failed after 2.0 s: pdf_encrypted: This file is encrypted."
