"""The hosted store on its bad days: each answer it can give, and each way not to answer."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import fake_storage
import httpx
import pytest
from fake_storage import FakeStorage, Refusal
from fixtures_storage import IMPATIENT, open_supabase, store_settings, supabase_settings
from tree import ROOT

from tasks.errors import Refused, Unavailable
from tasks.storage import open_storage
from tasks.storage.client import Passing, Patience
from tasks.storage.supabase import SupabaseStorage

TENANT = UUID("01932b00-0000-7000-8000-000000000001")
STORY = b"Once there was a lamp.\n" * 10_000
DIGEST = sha256(STORY).hexdigest()
KEY = f"{fake_storage.BUCKET}/{TENANT}/{DIGEST[:2]}/{DIGEST}"
# A try that fails, and both that follow.
ALL_TRIES = 1 + len(IMPATIENT.waits_s)

PASSING = [
    fake_storage.SLOW_DOWN,
    fake_storage.LOCKED,
    fake_storage.LOCK_TIMEOUT,
    fake_storage.DATABASE_TIMEOUT,
    fake_storage.INTERNAL,
    "reset",
    "page",
    "garbage",
]
BROKEN_BODIES = ["truncate", "shorten", "garble", "reset"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(STORY)
    return path


@pytest.fixture
def stored(supabase: SupabaseStorage, source: Path) -> SupabaseStorage:
    """A store that holds the story."""
    supabase.put(TENANT, DIGEST, source)
    return supabase


# Where things lie ------------------------------------------------------------------------------------


def test_keys_are_made_of_tenant_and_digest(stored: SupabaseStorage, hosted: FakeStorage) -> None:
    assert list(hosted.objects) == [KEY]
    assert hosted.types[KEY] == "application/octet-stream"


def test_settings_choose_the_store(hosted: FakeStorage) -> None:
    assert isinstance(open_storage(store_settings(**supabase_settings(hosted))), SupabaseStorage)
    assert isinstance(
        open_storage(store_settings(**supabase_settings(hosted) | {"supabase_url": hosted.url + "/"})), SupabaseStorage
    )


def test_large_bytes_that_are_there_are_not_sent_again(
    supabase: SupabaseStorage, hosted: FakeStorage, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(STORY * 20)
    for _ in range(2):
        supabase.put(TENANT, sha256(STORY * 20).hexdigest(), large)
    assert hosted.seen.count("upload") == 1


# Passing trouble -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", PASSING, ids=str)
def test_an_upload_outlives_passing_trouble(
    supabase: SupabaseStorage, hosted: FakeStorage, source: Path, way: Refusal | str
) -> None:
    hosted.break_next("upload", way, times=2)
    supabase.put(TENANT, DIGEST, source)
    assert hosted.objects[KEY].read_bytes() == STORY


@pytest.mark.parametrize("way", [*BROKEN_BODIES, *PASSING[:3], fake_storage.LINK_EXPIRED], ids=str)
def test_a_download_outlives_passing_trouble(
    stored: SupabaseStorage, hosted: FakeStorage, tmp_path: Path, way: Refusal | str
) -> None:
    hosted.break_next("download", way, times=2)
    stored.fetch(TENANT, DIGEST, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == STORY


@pytest.mark.parametrize("way", PASSING, ids=str)
@pytest.mark.parametrize("what", ["sign", "info", "remove", "bucket"])
def test_every_question_outlives_passing_trouble(
    stored: SupabaseStorage, hosted: FakeStorage, what: str, way: Refusal | str
) -> None:
    hosted.break_next(what, way, times=2)
    ask = {"sign": lambda: stored.link(TENANT, DIGEST, "a.txt", "text/plain"), "bucket": stored.check}
    ask |= {"info": lambda: stored.exists(TENANT, DIGEST), "remove": lambda: stored.delete(TENANT, DIGEST)}
    ask[what]()
    assert hosted.seen.count(what) == 3
    assert (KEY in hosted.objects) == (what != "remove")


@pytest.mark.parametrize("way", [*BROKEN_BODIES, *PASSING], ids=str)
def test_a_download_that_never_comes_whole_is_unavailable_and_leaves_nothing(
    stored: SupabaseStorage, hosted: FakeStorage, tmp_path: Path, way: Refusal | str
) -> None:
    (tmp_path / "here").mkdir()
    hosted.break_next("download", way, times=99)
    with unavailable() as caught:
        stored.fetch(TENANT, DIGEST, tmp_path / "here" / "back")
    assert isinstance(caught.value, Passing)
    assert hosted.seen.count("download") == ALL_TRIES
    assert list((tmp_path / "here").iterdir()) == []


def test_an_upload_that_never_gets_through_is_unavailable_and_leaves_nothing(
    supabase: SupabaseStorage, hosted: FakeStorage, source: Path
) -> None:
    hosted.break_next("upload", "reset", times=99)
    with unavailable():
        supabase.put(TENANT, DIGEST, source)
    assert hosted.objects == {}


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path, source: Path) -> None:
    gone = FakeStorage(tmp_path)
    gone.url = "http://127.0.0.1:1"
    with unavailable("ConnectError"):
        open_supabase(gone).put(TENANT, DIGEST, source)


def test_the_answer_says_how_long_to_wait_when_that_is_too_long_to_wait_here(
    supabase: SupabaseStorage, hosted: FakeStorage
) -> None:
    hosted.break_next("bucket", fake_storage.SLOW_DOWN, times=99, Retry_After="30")
    with unavailable("429 SlowDown") as caught:
        supabase.check()
    assert caught.value.headers == {"Retry-After": "30"}
    assert hosted.seen == ["bucket"]


def test_a_short_wait_that_the_store_asks_for_is_waited(hosted: FakeStorage) -> None:
    store = open_supabase(hosted, Patience(waits_s=(0.0,), again_s=60))
    hosted.break_next("bucket", fake_storage.SLOW_DOWN, Retry_After="1")
    started = time.monotonic()
    store.check()
    assert time.monotonic() - started >= 1


# Slow trouble ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hang", "trickle"])
@pytest.mark.parametrize("what", ["download", "sign", "info", "bucket"])
def test_an_answer_that_does_not_come_to_an_end_is_given_up(
    stored: SupabaseStorage, hosted: FakeStorage, tmp_path: Path, what: str, way: str
) -> None:
    hurried = open_supabase(hosted, Patience(silence_s=0.3, grace_s=0.3, waits_s=(0.0,), again_s=0.0))
    hosted.break_next(what, way, times=99)
    ask = {"download": lambda: hurried.fetch(TENANT, DIGEST, tmp_path / "back"), "bucket": hurried.check}
    ask |= {"sign": lambda: hurried.link(TENANT, DIGEST, "a", "b"), "info": lambda: hurried.exists(TENANT, DIGEST)}
    with unavailable("Timeout"):
        ask[what]()
    assert hosted.seen.count(what) == 1, "there was no time for another try"


def test_a_store_that_takes_no_more_bytes_is_given_up(hosted: FakeStorage, tmp_path: Path) -> None:
    hurried = open_supabase(hosted, Patience(silence_s=0.3, waits_s=()))
    large = tmp_path / "large"
    large.write_bytes(STORY * 100)
    hosted.break_next("upload", "hang", times=99)
    with unavailable("WriteTimeout"):
        hurried.put(TENANT, sha256(STORY * 100).hexdigest(), large)


# Lasting trouble -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (fake_storage.STRANGER, "404 NoSuchBucket"),
        (fake_storage.EXPIRED, "NoSuchBucket"),
        ("sb_secret_of_others", "401"),
    ],
)
def test_a_key_that_is_not_accepted_does_not_look_like_a_missing_file(
    stored: SupabaseStorage, hosted: FakeStorage, tmp_path: Path, key: str, said: str
) -> None:
    stranger = open_supabase(hosted, supabase_secret_key=key)
    for ask in (
        stranger.check,
        lambda: stranger.exists(TENANT, DIGEST),
        lambda: stranger.fetch(TENANT, DIGEST, tmp_path / "back"),
        lambda: stranger.link(TENANT, DIGEST, "a.txt", "text/plain"),
        lambda: stranger.delete(TENANT, DIGEST),
        lambda: stranger.put(TENANT, DIGEST, tmp_path / "source"),
    ):
        with unavailable("SUPABASE_SECRET_KEY") as caught:
            ask()
        assert not isinstance(caught.value, Passing)
        assert key not in caught.value.detail
    with unavailable(said):
        stranger.check()
    assert KEY in hosted.objects


def test_a_bucket_that_does_not_exist_is_named_as_the_cause(hosted: FakeStorage, source: Path) -> None:
    lost = open_supabase(hosted, storage_bucket="elsewhere")
    for ask in (lost.check, lambda: lost.put(TENANT, DIGEST, source), lambda: lost.exists(TENANT, DIGEST)):
        with unavailable("STORAGE_BUCKET"):
            ask()


def test_a_public_bucket_is_not_used(hosted: FakeStorage) -> None:
    hosted.add_bucket("shop-window", public=True)
    with unavailable("public"):
        open_supabase(hosted, storage_bucket="shop-window").check()


def test_a_file_above_the_buckets_limit_is_refused_once(
    hosted: FakeStorage, supabase: SupabaseStorage, source: Path
) -> None:
    hosted.add_bucket(fake_storage.BUCKET, file_size_limit=1000)
    with pytest.raises(Refused) as caught:
        supabase.put(TENANT, DIGEST, source)
    assert (caught.value.code, caught.value.status) == ("file_too_large", 413)
    assert hosted.seen == ["upload"]


def test_a_project_above_its_quota_is_full(hosted: FakeStorage, supabase: SupabaseStorage, source: Path) -> None:
    hosted.break_next("upload", fake_storage.OVER_QUOTA)
    with pytest.raises(Unavailable) as caught:
        supabase.put(TENANT, DIGEST, source)
    assert (caught.value.code, caught.value.status) == ("storage_full", 507)


def test_a_bucket_for_pictures_only_is_named_as_the_cause(
    hosted: FakeStorage, supabase: SupabaseStorage, source: Path
) -> None:
    hosted.break_next("upload", fake_storage.FORBIDDEN_TYPE)
    with unavailable("files of every type"):
        supabase.put(TENANT, DIGEST, source)


def test_an_address_that_redirects_is_named_as_the_cause(hosted: FakeStorage, supabase: SupabaseStorage) -> None:
    hosted.break_next("bucket", Refusal(301, "", "Moved Permanently", status=301), Location="http://127.0.0.1:1/")
    with unavailable("SUPABASE_URL"):
        supabase.check()


# Links -----------------------------------------------------------------------------------------------


def test_a_link_leads_straight_to_the_hosted_store_until_it_expires(
    hosted: FakeStorage, stored: SupabaseStorage
) -> None:
    url = stored.link(TENANT, DIGEST, "story.txt", "text/plain")
    assert url.startswith(f"{hosted.url}/storage/v1/object/sign/{KEY}?token=")
    hosted.passed_s = 280  # the test itself takes time, too
    assert httpx.get(url).content == STORY
    hosted.passed_s = 301
    answer = httpx.get(url)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidJWT")


def test_a_link_to_one_file_opens_no_other(hosted: FakeStorage, stored: SupabaseStorage, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    other = sha256(b"other").hexdigest()
    stored.put(TENANT, other, tmp_path / "other")
    url = stored.link(TENANT, DIGEST, "story.txt", "text/plain")
    answer = httpx.get(url.replace(f"{DIGEST[:2]}/{DIGEST}", f"{other[:2]}/{other}"))
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidSignature")


# What must not happen --------------------------------------------------------------------------------


def test_neither_keys_nor_links_are_logged(
    hosted: FakeStorage, stored: SupabaseStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hosted.break_next("download", "truncate")
    hosted.break_next("bucket", Refusal(403, "AccessDenied", f"bad key {fake_storage.SECRET}", "Unauthorized"))
    stored.fetch(TENANT, DIGEST, tmp_path / "back")
    link = stored.link(TENANT, DIGEST, "story.txt", "text/plain")
    with unavailable("(the key)") as caught:
        stored.check()
    written = caplog.text + str(caught.value) + caught.value.detail + repr(stored)
    assert fake_storage.SECRET not in written
    assert "token=" not in written
    assert link.rpartition("token=")[2].split("&")[0] not in written
    logging.getLogger("tests").debug("the log is caught")
    assert "the log is caught" in caplog.text


def test_a_large_file_goes_through_in_constant_memory(hosted: FakeStorage, tmp_path: Path) -> None:
    size = 96 * 1024 * 1024
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(size)
    settings = supabase_settings(hosted) | {"database_url": "postgresql://nobody@127.0.0.1:1/nothing"}
    ran = subprocess.run(
        [sys.executable, "-c", CARRIER, str(large), str(tmp_path / "back"), repr(settings)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "back").stat().st_size == size
    assert int(ran.stdout) < 24 * 1024, "KiB that the process grew by"


CARRIER = """
import ast, resource, sys
from pathlib import Path
from uuid import UUID
from tasks.settings import load
from tasks.storage import digest_file, open_storage

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

large, back, tenant = Path(sys.argv[1]), Path(sys.argv[2]), UUID(int=1)
store = open_storage(load(**ast.literal_eval(sys.argv[3])))
store.check()
digest, _ = digest_file(large)
before = peak()
store.put(tenant, digest, large)
store.fetch(tenant, digest, back)
print(peak() - before)
"""


@contextmanager
def unavailable(cause: str = "") -> Iterator[pytest.ExceptionInfo[Unavailable]]:
    """The store is away, and the operator's detail names the cause. Users are told nothing of it."""
    with pytest.raises(Unavailable) as caught:
        yield caught
    assert (caught.value.code, caught.value.status) == ("storage_unavailable", 503)
    assert cause in caught.value.detail
    assert caught.value.message == "Files cannot be reached right now."
