"""A real API, on gevent, whose files lie in the imitated Supabase Storage."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import fake_storage
import httpx
import pytest
from api_play import PREFIX, Served, error_code, make_settings, make_token, serve
from fake_storage import FakeStorage
from fixtures_storage import open_supabase, supabase_settings
from ledger_play import Play

STORY = b"The lamp was lit at dusk, and nobody had lit it.\n" * 40_000


@pytest.fixture
def api(hosted: FakeStorage, database_url: str, tmp_path: Path) -> Iterator[Served]:
    """An API of this test alone, with its files in the imitation."""
    settings = make_settings(database_url, tmp_path / "staging", **supabase_settings(hosted))
    with serve(settings, tmp_path / "api.log") as running:
        yield running


@pytest.fixture
def client(api: Served, real_play: Play) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {make_token(real_play.user)}"}
    with httpx.Client(base_url=api.url, headers=headers, timeout=30) as opened:
        yield opened


def send(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post(f"{PREFIX}/documents", files={"file": ("story.txt", data)})


def test_uploads_of_many_at_once_share_the_hosted_store(
    client: httpx.Client, hosted: FakeStorage, tmp_path: Path
) -> None:
    def send_and_ask(number: int) -> tuple[int, bool]:
        said = send(client, STORY + bytes([65 + number]))
        checks = client.get("/readyz").json()["checks"]
        return said.status_code, next(check["ok"] for check in checks if check["name"] == "storage")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send_and_ask, range(24))) == {(201, True)}
    assert len(hosted.objects) == 24
    assert [path for path in (tmp_path / "staging").rglob("*") if path.is_file()] == []


def test_an_artifact_is_downloaded_straight_from_the_hosted_store(
    client: httpx.Client, hosted: FakeStorage, real_play: Play, tmp_path: Path
) -> None:
    (tmp_path / "report").write_bytes(STORY)
    digest = sha256(STORY).hexdigest()
    open_supabase(hosted).put(real_play.tenant, digest, tmp_path / "report")
    made = {"name": "Bericht für Ö.md", "media_type": "text/markdown", "sha256": digest, "bytes": len(STORY)}
    job = real_play.submit("one")
    real_play.complete(real_play.begin(), artifacts=[made])
    (artifact,) = real_play.artifacts(job)
    answer = client.get(f"{PREFIX}/artifacts/{artifact['id']}")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(f"{hosted.url}/storage/v1/object/sign/")
    assert httpx.get(answer.headers["Location"]).content == STORY
    assert client.get(f"{PREFIX}/files/made-up").status_code == 404, "this API serves no files itself"
    open_supabase(hosted).delete(real_play.tenant, digest)
    gone = client.get(f"{PREFIX}/artifacts/{artifact['id']}")
    assert (gone.status_code, error_code(gone)) == (404, "file_not_found")


@pytest.mark.parametrize(
    ("way", "status", "code"),
    [
        (fake_storage.DENIED, 503, "storage_unavailable"),
        (fake_storage.SLOW_DOWN, 503, "storage_unavailable"),
        (fake_storage.OVER_QUOTA, 507, "storage_full"),
        (fake_storage.TOO_LARGE, 413, "file_too_large"),
    ],
    ids=str,
)
def test_an_upload_that_the_hosted_store_does_not_take_leaves_no_half_row(
    client: httpx.Client,
    api: Served,
    hosted: FakeStorage,
    real_play: Play,
    way: fake_storage.Refusal,
    status: int,
    code: str,
) -> None:
    hosted.break_next("upload", way, times=99)
    refused = send(client, STORY)
    assert (refused.status_code, error_code(refused)) == (status, code)
    assert real_play.one("select count(*) from documents") == 0
    assert fake_storage.SECRET not in api.log.read_text()
