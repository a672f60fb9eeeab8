"""A real worker whose files lie in the imitated Supabase Storage."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from uuid import UUID

import fake_storage
import httpx
from fake_storage import FakeStorage
from fixtures_storage import open_supabase, supabase_settings
from ledger_play import Play
from waiting import following
from workers import running_worker

STORY = "The lamp was lit at dusk, and nobody had lit it.\n" * 4000


def test_a_document_goes_through_a_worker_and_a_hosted_store(
    hosted: FakeStorage, real_play: Play, database_url: str, tmp_path: Path
) -> None:
    job = send(hosted, real_play, tmp_path)
    with running_worker(database_url, tmp_path / "worker", "sample_pipelines", **supabase_settings(hosted)):
        wait_for_end(real_play, database_url, job)
    assert real_play.job(job)["status"] == "completed", real_play.failures(job)
    (artifact,) = real_play.artifacts(job)
    url = open_supabase(hosted).link(real_play.tenant, artifact["sha256"], artifact["name"], artifact["media_type"])
    answer = httpx.get(url)
    assert answer.text == STORY.upper()
    assert "attachment" in answer.headers["Content-Disposition"]
    assert not [path for path in (tmp_path / "worker" / "storage").rglob("*") if path.is_file()]
    assert real_play.drift() == []


def test_a_bad_day_of_the_store_costs_no_job_and_tells_nothing(
    hosted: FakeStorage, real_play: Play, database_url: str, tmp_path: Path
) -> None:
    job = send(hosted, real_play, tmp_path)
    for what, way in {"sign": "reset", "download": "truncate", "upload": fake_storage.SLOW_DOWN}.items():
        hosted.break_next(what, way)
    settings = supabase_settings(hosted) | {"log_level": "DEBUG"}
    with running_worker(database_url, tmp_path / "worker", "sample_pipelines", **settings):
        wait_for_end(real_play, database_url, job)
    assert real_play.job(job)["status"] == "completed"
    assert [fault.times for fault in hosted.faults] == [0, 0, 0], "all of it happened"
    assert real_play.failures(job) == [], "no attempt was lost"
    log = (tmp_path / "worker" / "worker.log").read_text()
    assert [word for word in (fake_storage.SECRET, "token=", "lamp was lit") if word in log] == []


def test_a_store_that_stays_away_fails_the_job_with_a_sentence_and_the_operator_reads_why(
    hosted: FakeStorage, real_play: Play, database_url: str, tmp_path: Path
) -> None:
    job = send(hosted, real_play, tmp_path)
    with running_worker(
        database_url, tmp_path / "worker", "sample_pipelines",
        **supabase_settings(hosted) | {"supabase_secret_key": fake_storage.STRANGER},
    ):  # fmt: skip
        wait_for_end(real_play, database_url, job)
    failed = real_play.job(job)
    assert (failed["status"], failed["error_code"]) == ("failed", "storage_unavailable")
    assert failed["error_message"] == "Files cannot be reached right now."
    failures = real_play.failures(job)
    assert len(failures) == 2, "the step's attempts"
    assert all("SUPABASE_SECRET_KEY" in failure["detail"] for failure in failures)
    assert real_play.drift() == []


def send(hosted: FakeStorage, play: Play, folder: Path) -> UUID:
    """Upload the story, and ask for the pipeline that reads it."""
    path = folder / "story.txt"
    path.write_text(STORY)
    open_supabase(hosted).put(play.tenant, sha256(STORY.encode()).hexdigest(), path)
    return play.submit("reading", document_id=play.add_document(STORY), params={})


def wait_for_end(play: Play, url: str, job: UUID) -> None:
    with following(url) as follower:
        follower.until(lambda: play.job(job)["status"] in ("completed", "failed"), within=60)
