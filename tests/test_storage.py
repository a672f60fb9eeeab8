"""What every store does, asked of each of them in the same words."""

from __future__ import annotations

import errno
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID, uuid4

import httpx
import pytest
from fixtures_storage import open_local

from tasks.errors import Refused, Unavailable
from tasks.storage import LocalStorage, Storage, digest_file, full_disk_is_unavailable

STORY = b"Once there was a lamp.\n" * 10_000
OURS = UUID("01932b00-0000-7000-8000-000000000001")
THEIRS = UUID("01932b00-0000-7000-8000-000000000002")


@pytest.fixture(params=["local", "supabase"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def keep(storage: Storage, tmp_path: Path) -> Callable[..., str]:
    """Store bytes for a tenant; gives their digest."""

    def store(data: bytes = STORY, tenant: UUID = OURS) -> str:
        digest = sha256(data).hexdigest()
        storage.put(tenant, digest, _written(tmp_path / uuid4().hex, data))
        return digest

    return store


def follow(storage: Storage, url: str) -> tuple[bytes, str]:
    """What a link leads to: the bytes, and the name they are saved under."""
    if isinstance(storage, LocalStorage):
        path, filename, _ = storage.open_link(url.rpartition("/api/v1/files/")[2])
        return path.read_bytes(), filename
    answer = httpx.get(url).raise_for_status()
    return answer.content, unquote(answer.headers["Content-Disposition"].partition("UTF-8''")[2])


@pytest.mark.parametrize("data", [b"", b"x", STORY, b"\r\n--boundary\r\n\0" * 70_000], ids=len)
def test_what_is_put_is_what_is_fetched(
    storage: Storage, keep: Callable[..., str], tmp_path: Path, data: bytes
) -> None:
    storage.fetch(OURS, keep(data), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_storing_twice_is_storing_once(storage: Storage, keep: Callable[..., str], tmp_path: Path) -> None:
    assert keep() == keep()
    storage.fetch(OURS, keep(), tmp_path / "back")
    assert digest_file(tmp_path / "back") == (sha256(STORY).hexdigest(), len(STORY))


def test_many_may_store_the_same_bytes_at_once(storage: Storage, keep: Callable[..., str], tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: keep(), range(16)))) == 1
    storage.fetch(OURS, sha256(STORY).hexdigest(), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == STORY


def test_what_was_not_stored_is_not_there(storage: Storage, tmp_path: Path) -> None:
    nothing = sha256(b"nothing").hexdigest()
    assert not storage.exists(OURS, nothing)
    with missing():
        storage.fetch(OURS, nothing, tmp_path / "back")
    with missing():
        storage.link(OURS, nothing, "story.txt", "text/plain")
    assert list(tmp_path.glob("back*")) + list(tmp_path.glob("tmp*")) == []


def test_a_tenant_finds_its_own_bytes_only(storage: Storage, keep: Callable[..., str], tmp_path: Path) -> None:
    digest = keep(tenant=OURS)
    assert (storage.exists(OURS, digest), storage.exists(THEIRS, digest)) == (True, False)
    with missing():
        storage.fetch(THEIRS, digest, tmp_path / "back")


def test_deleting_takes_one_tenants_bytes_and_does_not_mind_that_they_are_gone(
    storage: Storage, keep: Callable[..., str]
) -> None:
    digest = keep(tenant=OURS)
    keep(tenant=THEIRS)
    for _ in range(2):
        storage.delete(OURS, digest)
        assert (storage.exists(OURS, digest), storage.exists(THEIRS, digest)) == (False, True)


def test_what_was_deleted_can_be_stored_again(storage: Storage, keep: Callable[..., str]) -> None:
    storage.delete(OURS, keep())
    assert storage.exists(OURS, keep())


@pytest.mark.parametrize("name", ["story.txt", "Die Höhle – 第一章 (2).md", "a&b=c?d#e%20f.txt", 'a "b" c.txt'])
def test_a_link_downloads_the_bytes_under_a_name(storage: Storage, keep: Callable[..., str], name: str) -> None:
    url = storage.link(OURS, keep(), name, "text/plain")
    assert url.startswith("http://")
    assert follow(storage, url) == (STORY, name)


def test_a_store_that_works_passes_its_check(storage: Storage) -> None:
    storage.check()


def test_a_disk_that_fills_up_while_fetching_leaves_no_half_file(
    storage: Storage, keep: Callable[..., str], small_disk: Path
) -> None:
    digest = keep(b"\7" * 1_000_000)
    with full():
        storage.fetch(OURS, digest, small_disk / "back")
    assert list(small_disk.iterdir()) == []


def test_a_file_size_limit_while_fetching_leaves_no_half_file(
    storage: Storage, keep: Callable[..., str], tmp_path: Path
) -> None:
    digest = keep(b"\7" * 1_000_000)
    (tmp_path / "here").mkdir()
    with full(), files_up_to(100_000):
        storage.fetch(OURS, digest, tmp_path / "here" / "back")
    assert list((tmp_path / "here").iterdir()) == []


# The local store alone ------------------------------------------------------------------------------


def test_a_disk_that_fills_up_while_storing_leaves_no_half_file(tmp_path: Path, small_disk: Path) -> None:
    store = open_local(small_disk)
    source = _written(tmp_path / "source", b"\7" * 1_000_000)
    digest, _ = digest_file(source)
    with full():
        store.put(OURS, digest, source)
    assert not store.exists(OURS, digest)
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    store.put(OURS, sha256(b"small").hexdigest(), _written(tmp_path / "small", b"small"))


def test_a_file_size_limit_while_storing_leaves_no_half_file(local: LocalStorage, tmp_path: Path) -> None:
    source = _written(tmp_path / "source", b"\7" * 1_000_000)
    with full(), files_up_to(100_000):
        local.put(OURS, digest_file(source)[0], source)
    assert [path for path in local.root.rglob("*") if path.is_file()] == []


def test_a_full_disk_fails_the_check(small_disk: Path) -> None:
    store = open_local(small_disk)
    with pytest.raises(OSError, match="No space") as caught:
        (small_disk / "ballast").write_bytes(b"\7" * 1_000_000)
    assert caught.value.errno == errno.ENOSPC
    with full():
        store.check()


def test_a_folder_that_is_gone_fails_the_check(local: LocalStorage) -> None:
    local.staging.rmdir()
    with pytest.raises(Unavailable) as caught:
        local.check()
    assert (caught.value.code, caught.value.status) == ("storage_unavailable", 503)
    assert "No such file" in caught.value.detail


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, "storage_unavailable"), (errno.EDQUOT, "storage_full")])
def test_a_broken_disk_is_the_stores_fault_and_a_wrong_name_is_not(number: int, code: str) -> None:
    with pytest.raises(Unavailable) as caught, full_disk_is_unavailable():
        raise OSError(number, "as the kernel says")
    assert caught.value.code == code
    with pytest.raises(FileNotFoundError), full_disk_is_unavailable():
        raise FileNotFoundError(errno.ENOENT, "as the kernel says")


def test_a_local_link_is_served_by_the_api_and_expires(local: LocalStorage, tmp_path: Path) -> None:
    digest = sha256(STORY).hexdigest()
    local.put(OURS, digest, _written(tmp_path / "story", STORY))
    url = local.link(OURS, digest, "story.txt", "text/plain")
    assert url.startswith("http://127.0.0.1:8000/api/v1/files/")
    token = url.rpartition("/")[2]
    assert local.open_link(token) == (local.path(OURS, digest), "story.txt", "text/plain")
    with refused("link_invalid", 404):
        local.open_link(f"x{token}")
    local._ttl_s = -1
    with refused("link_expired", 410):
        local.open_link(token)


# ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with room for half a MiB. Skips the test where nothing may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file that this process writes may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def refused(code: str, status: int) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert (caught.value.code, caught.value.status) == (code, status)


def missing() -> object:
    return refused("file_not_found", 404)


@contextmanager
def full() -> Iterator[None]:
    with pytest.raises(Unavailable) as caught:
        yield
    assert (caught.value.code, caught.value.status) == ("storage_full", 507)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
