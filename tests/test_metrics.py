"""Metrics: what one scrape tells about the whole house, who may ask, and that asking is cheap at any depth."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
import yaml
from api_play import PREFIX, Front, Person, error_code, make_settings, serve, submit_job
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from psycopg.types.json import Jsonb
from tree import read
from waiting import until
from worker_process import House

from api import create_app
from api.house import house_of
from tasks.engine.tally import Tally

NAMES = re.compile(r"\b(?:ledgerline|http|process)_[a-z_]+")

Samples = dict[str, list[tuple[dict[str, str], float]]]


def parse(text: str) -> Samples:
    """Values by name, each with its labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def scrape(app: Flask, **headers: str) -> Samples:
    answer = Person(app, None, token="-").get("/metrics", headers={"Authorization": None} | headers)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.get_json()
    assert answer.content_type.startswith("text/plain")
    return parse(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all samples of a name that have these labels."""
    return sum(number for found, number in samples.get(name, ()) if labels.items() <= found.items())


@contextmanager
def api(front: Front, folder: Path, **settings: Any) -> Iterator[Flask]:
    made = create_app(make_settings(front.settings.database_url.get_secret_value(), folder, **settings))
    yield made
    house_of(made).close()


# Who may ask ---------------------------------------------------------------------------------------


def test_without_a_token_only_the_same_machine_is_answered(app: Flask) -> None:
    client = app.test_client()
    for path in ("/metrics", f"{PREFIX}/metrics"):
        assert client.get(path).status_code == 200
        for address in ("10.1.2.3", "2001:db8::1", "", "unix:"):
            answer = client.get(path, environ_base={"REMOTE_ADDR": address})
            assert (answer.status_code, error_code(answer)) == (403, "metrics_refused")
    assert client.get("/metrics", environ_base={"REMOTE_ADDR": "::1"}).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_a_proxy_on_the_same_machine_speaks_for_others(app: Flask, header: str) -> None:
    assert app.test_client().get("/metrics", headers={header: "127.0.0.1"}).status_code == 403


def test_with_a_token_whoever_has_it_is_answered_and_nobody_else(front: Front, tmp_path: Path) -> None:
    with api(front, tmp_path, metrics_token="the-token-of-those-who-watch") as guarded:
        client = guarded.test_client()
        far = {"REMOTE_ADDR": "10.1.2.3"}
        good = {"Authorization": "Bearer the-token-of-those-who-watch", "X-Forwarded-For": "10.9.9.9"}
        assert client.get("/metrics", environ_base=far, headers=good).status_code == 200
        for sent in ("", "Bearer", "Bearer wrong", "Basic the-token-of-those-who-watch", "Bearer é"):
            assert client.get("/metrics", headers={"Authorization": sent}).status_code == 403, sent
        owner = front.person()
        assert client.get("/metrics", headers=owner.bearer()).status_code == 403


# What is told --------------------------------------------------------------------------------------


def test_requests_are_counted_by_method_template_and_status(front: Front, app: Flask) -> None:
    before = scrape(app)
    person = front.person()
    job = submit_job(front, person)["id"]
    for _ in range(3):
        person.get(f"/jobs/{job}")
    person.get(f"/jobs/{person.user}")
    app.test_client().get("/no/such/way?secret=1", buffered=True)
    app.test_client().open("/healthz", method="BREW", buffered=True)
    after = scrape(app)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    look = {"method": "GET", "route": f"{PREFIX}/jobs/<uuid:job_id>"}
    assert more("http_requests_total", **look, status="200") == 3
    assert more("http_requests_total", **look, status="404") == 1
    assert more("http_requests_total", route="none", status="404") == 1
    assert more("http_requests_total", method="other", status="405") == 1
    assert more("http_request_duration_seconds_count", **look) == 4
    assert not any(job in str(labels) for found in after.values() for labels, _ in found)


def test_jobs_queues_workers_and_the_sweep_are_told(front: Front, app: Flask) -> None:
    play = front.play
    for _ in range(3):
        play.submit("line")
    play.begin()
    play.all("select ledger.sign_chore('sweep', null, 2), ledger.beat(%s, 'h', 1, 't', '{llm}', '{}', '{}', false)",
             play.worker)  # fmt: skip
    play.all("update job_steps set queued_at = queued_at - interval '100 s' where status = 'queued' returning 1")
    told = scrape(app)
    assert value(told, "ledgerline_database_up") == 1
    assert {labels["status"]: number for labels, number in told["ledgerline_jobs"]} == {
        "queued": 2, "running": 1, "awaiting_review": 0,
    }  # fmt: skip
    assert {labels["queue"]: number for labels, number in told["ledgerline_queue_depth"]} == {
        "cpu": 0, "llm": 2, "media": 0, "maintenance": 0,
    }  # fmt: skip
    assert 100 <= value(told, "ledgerline_queue_oldest_seconds", queue="llm") < 160
    assert value(told, "ledgerline_workers", queue="llm") == 1
    assert 0 <= value(told, "ledgerline_sweep_age_seconds") < 60
    assert value(told, "ledgerline_repairs_total", chore="sweep") == 2
    assert value(told, "ledgerline_queue_closed") == 0
    play.all("select ledger.pause('queue', 'llm', '')")
    assert value(scrape(app), "ledgerline_queue_closed", queue="llm") == 1


def test_what_the_process_has_in_hand_is_told(front: Front, app: Flask) -> None:
    job = submit_job(front)["id"]
    with house_of(app).live.follow(front.play.job(job)["id"]):
        told = scrape(app)
    assert value(told, "ledgerline_open_streams") == 1
    assert value(told, "ledgerline_pool_connections", state="open") >= 1
    pid = str(os.getpid())
    assert value(told, "process_resident_memory_bytes", pid=pid) > 10_000_000
    assert value(told, "process_cpu_seconds_total", pid=pid) > 0
    assert value(scrape(app), "ledgerline_open_streams") == 0


def test_while_the_database_is_away_that_is_told(front: Front, tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    made = create_app(make_settings(nowhere, tmp_path))
    told = scrape(made)
    assert value(told, "ledgerline_database_up") == 0
    assert "ledgerline_jobs" not in told
    assert "process_cpu_seconds_total" in told
    house_of(made).close()


# Workers' word -------------------------------------------------------------------------------------


def test_attempts_of_real_workers_are_told_by_outcome_and_code(house: House, tmp_path: Path) -> None:
    play = house.play
    worker = house.start()
    house.finish(play.submit("line", params={"width": 1}), play.submit("line", params={"width": 1, "mark": "again"}))
    assert house.finish(play.submit("stumbling", params={"width": 3})) == ["failed"]
    worker.terminate()
    assert worker.end() == 0
    made = create_app(make_settings(house.url, tmp_path / "api"))
    told = scrape(made)
    house_of(made).close()
    runs = play.all("select j.pipeline, s.step, s.status from job_steps s join jobs j on j.id = s.job_id")
    done = Counter((run["pipeline"], run["step"]) for run in runs if run["status"] == "completed")
    for (pipeline, step), count in done.items():
        outcomes = [value(told, "ledgerline_attempts_total", pipeline=pipeline, step=step, outcome=outcome)
                    for outcome in ("completed", "reused")]  # fmt: skip
        assert sum(outcomes) == count
        assert value(told, "ledgerline_step_duration_seconds_count", pipeline=pipeline, step=step) == outcomes[0]
        assert (
            value(told, "ledgerline_step_duration_seconds_bucket", pipeline=pipeline, step=step, le="+Inf")
            == outcomes[0]
        )
    codes = Counter(row["code"] for row in play.all("select code from ops.failures"))
    assert codes
    for code, count in codes.items():
        assert value(told, "ledgerline_failures_total", pipeline="stumbling", code=code) == count
    assert value(told, "ledgerline_attempts_total", pipeline="stumbling", outcome="failed") == 1


def test_counts_of_several_workers_add_up(front: Front, app: Flask) -> None:
    told = [{"pipeline": "p", "step": "s", "outcome": "completed", "code": "", "attempts": 2, "seconds": 3.0,
             "buckets": [0, 0, 1, 1, 0, 0, 0, 0, 0]}]  # fmt: skip
    for _ in range(2):
        front.play.all("select ledger.count_attempts(%s)", Jsonb(told))
    samples = scrape(app)
    step = {"pipeline": "p", "step": "s"}
    assert value(samples, "ledgerline_step_duration_seconds_sum", **step) == 6
    heights = {labels["le"]: number for labels, number in samples["ledgerline_step_duration_seconds_bucket"]}
    assert (heights["0.1"], heights["1.0"], heights["5.0"], heights["+Inf"]) == (0, 2, 4, 4)


def test_what_could_not_be_told_is_kept_and_told_later(attempt: Any) -> None:
    tally = Tally()
    with tally.watch(attempt) as ending:
        ending.outcome, ending.code = "failed", "x" * 100
    first = tally.take()
    assert (first[0]["attempts"], sum(first[0]["buckets"]), len(first[0]["code"])) == (1, 1, 64)
    assert tally.take() == []
    with tally.watch(attempt) as ending:
        ending.outcome, ending.code = "failed", "x" * 100
    tally.give_back(first)
    (both,) = tally.take()
    assert (both["attempts"], sum(both["buckets"])) == (2, 2)
    with pytest.raises(OSError), tally.watch(attempt):
        raise OSError
    assert tally.take() == [], "nobody knows yet how it ended"


@pytest.fixture
def attempt() -> Any:
    return SimpleNamespace(pipeline="p", step="s")


def test_the_alerts_and_the_page_for_operators_name_what_is_told(front: Front, app: Flask) -> None:
    step = {"pipeline": "p", "step": "s", "attempts": 1, "seconds": 1.0, "buckets": [0, 0, 1, 0, 0, 0, 0, 0, 0]}
    told = [step | {"outcome": "completed", "code": ""}, step | {"outcome": "failed", "code": "c"}]
    front.play.all("select ledger.count_attempts(%s), ledger.sign_chore('sweep', null, 1)", Jsonb(told))
    front.person().get("/jobs")
    names = set(scrape(app))
    rules = yaml.safe_load(read("deploy/alerts.yaml"))["groups"][0]["rules"]
    asked = {name for rule in rules for name in NAMES.findall(rule["expr"])}
    assert len(asked) > 8
    assert asked - names == set()
    listed = set(re.findall(r"^\| `((?:ledgerline|http)_\w+)", read("docs/operations.md"), re.MULTILINE))
    told_of = {name for name in names if not name.startswith("process_") and not name.endswith("_created")}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in told_of}
    assert listed == families


# Several processes ---------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def test_one_scrape_tells_about_all_processes_and_counts_never_go_back(front: Front, tmp_path: Path) -> None:
    with serve(front.settings, tmp_path / "api.log", WEB_CONCURRENCY="2") as served:
        until(lambda: len(children(served.process.pid)) == 2)

        def told() -> Samples:
            return parse(httpx.get(f"{served.url}/metrics").text)

        def shown() -> set[int]:
            return {int(labels["pid"]) for labels, _ in told()["process_resident_memory_bytes"]}

        def asked(samples: Samples) -> float:
            return value(samples, "http_requests_total", route=f"{PREFIX}/pipelines", status="401")

        for _ in range(40):
            assert httpx.get(f"{served.url}{PREFIX}/pipelines").status_code == 401
        until(lambda: asked(told()) == 40)
        assert [asked(told()) for _ in range(10)] == [40] * 10, "whoever answers"
        until(lambda: shown() == {served.process.pid, *children(served.process.pid)})
        dead = children(served.process.pid)[0]
        psutil.Process(dead).kill()
        until(lambda: dead not in shown() and len(shown()) == 3)
        assert asked(told()) == 40
        assert value(told(), "ledgerline_open_streams") == 0
