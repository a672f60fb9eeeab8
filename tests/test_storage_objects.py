"""What is not content yet, asked of each store in the same words: sent by a signed link, drawn, kept, listed."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import fake_storage
import httpx
import pytest
from fake_storage import FakeStorage
from fixtures_storage import open_local, open_supabase

from tasks.errors import Refused, Unavailable
from tasks.storage import LocalStorage, SignedUpload, Storage, digest_file, incoming_key, upload_key
from tasks.storage.supabase import SupabaseStorage

STORY = b"Once there was a lamp.\n" * 10_000
OURS = UUID("01932b00-0000-7000-8000-000000000001")
THEIRS = UUID("01932b00-0000-7000-8000-000000000002")


@pytest.fixture(params=["local", "supabase"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def send(storage: Storage, signed: SignedUpload, data: bytes) -> int:
    """Send bytes as a client does; the status of the answer. Local storage is served by the API: see its tests."""
    if isinstance(storage, LocalStorage):
        tenant, upload, size = storage.open_upload(signed.url.rpartition("/api/v1/uploads/")[2])
        assert size == len(data)
        with storage.receive(tenant, upload) as file:
            file.write(data)
        return 200
    return httpx.request(signed.method, signed.url, headers=signed.headers, content=data).status_code


def place(storage: Storage, hosted: FakeStorage, path: str, data: bytes = STORY, tenant: UUID = OURS) -> None:
    """Put a file where batches find it, as the tenant's own tools do."""
    if isinstance(storage, LocalStorage):
        target = storage.root / str(tenant) / "incoming" / path
        target.parent.mkdir(parents=True, exist_ok=True)
    else:
        target = hosted.folder / uuid4().hex
        hosted.objects[f"{fake_storage.BUCKET}/{tenant}/incoming/{path}"] = target
        hosted.types[f"{fake_storage.BUCKET}/{tenant}/incoming/{path}"] = "text/html"
    target.write_bytes(data)


def missing(storage: Storage, key: str, target: Path, tenant: UUID = OURS) -> None:
    with pytest.raises(Refused) as caught:
        storage.draw(tenant, key, target, 10**9)
    assert caught.value.code == "file_not_found"


def test_what_is_sent_by_a_signed_link_is_drawn_digested_and_kept(storage: Storage, tmp_path: Path) -> None:
    upload = uuid4()
    assert send(storage, storage.sign_upload(OURS, upload, len(STORY)), STORY) == 200
    drawn = storage.draw(OURS, upload_key(upload), tmp_path / "drawn", len(STORY))
    digest = sha256(STORY).hexdigest()
    assert (drawn.size, drawn.sha256) == (len(STORY), digest)
    assert digest_file(drawn.path) == (digest, len(STORY))
    storage.adopt(OURS, drawn)
    storage.discard(OURS, upload_key(upload))
    storage.discard(OURS, upload_key(upload))
    storage.fetch(OURS, digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == STORY
    missing(storage, upload_key(upload), tmp_path / "drawn")


def test_what_is_kept_twice_is_kept_once(storage: Storage, hosted: FakeStorage, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        place(storage, hosted, name)
        storage.adopt(OURS, storage.draw(OURS, incoming_key(name), tmp_path / "drawn", 10**9))
    assert storage.exists(OURS, sha256(STORY).hexdigest())


def test_an_upload_belongs_to_its_tenant(storage: Storage, tmp_path: Path) -> None:
    upload = uuid4()
    send(storage, storage.sign_upload(OURS, upload, len(STORY)), STORY)
    missing(storage, upload_key(upload), tmp_path / "drawn", THEIRS)


def test_drawing_stops_at_the_limit(storage: Storage, hosted: FakeStorage, tmp_path: Path) -> None:
    place(storage, hosted, "a.txt")
    with pytest.raises(Refused) as caught:
        storage.draw(OURS, incoming_key("a.txt"), tmp_path / "drawn", len(STORY) - 1)
    assert caught.value.code == "file_too_large"


def test_walking_finds_all_files_below_a_folder(storage: Storage, hosted: FakeStorage) -> None:
    for path in ("a.txt", "books/b.txt", "books/old/c d.txt", "books/.keep", "bookshelf/e.txt"):
        place(storage, hosted, path)
    place(storage, hosted, "theirs.txt", tenant=THEIRS)
    assert sorted(storage.walk(OURS, "books")) == ["books/b.txt", "books/old/c d.txt"]
    assert sorted(storage.walk(OURS, "")) == ["a.txt", "books/b.txt", "books/old/c d.txt", "bookshelf/e.txt"]
    assert list(storage.walk(OURS, "nowhere")) == []
    assert list(storage.walk(OURS, "a.txt")) == []


def test_walking_goes_on_over_many_pages(storage: Storage, hosted: FakeStorage) -> None:
    for number in range(2500):
        place(storage, hosted, f"many/{number}.txt", b"x")
    assert len(set(storage.walk(OURS, "many"))) == 2500


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a\\b", "a\nb", "x" * 501, "a/"])
def test_a_path_that_leads_out_of_the_area_is_no_path(path: str) -> None:
    with pytest.raises(Refused) as caught:
        incoming_key(path)
    assert (caught.value.code, caught.value.status) == ("path_invalid", 422)


def test_a_symbolic_link_leads_nowhere(tmp_path: Path) -> None:
    storage = open_local(tmp_path / "store")
    area = storage.root / str(OURS) / "incoming"
    area.mkdir(parents=True)
    (tmp_path / "secret.txt").write_bytes(STORY)
    (area / "link.txt").symlink_to(tmp_path / "secret.txt")
    (area / "up").symlink_to(tmp_path)
    missing(storage, incoming_key("link.txt"), tmp_path / "drawn")
    missing(storage, incoming_key("up/secret.txt"), tmp_path / "drawn")
    assert list(storage.walk(OURS, "")) == []


# The hosted store ------------------------------------------------------------------------------------


def test_a_signed_upload_is_good_for_one_object_and_until_it_expires(
    supabase: SupabaseStorage, hosted: FakeStorage
) -> None:
    first, second = (supabase.sign_upload(OURS, uuid4(), 5) for _ in range(2))
    assert send(supabase, first, b"hello") == 200
    assert send(supabase, first, b"other") == 400, "there is one already, and it is not replaced"
    hosted.passed_s = fake_storage.UPLOAD_TTL_S
    assert send(supabase, second, b"hello") == 400


@pytest.mark.parametrize("way", ["truncate", "shorten", "reset", fake_storage.SLOW_DOWN], ids=str)
def test_drawing_is_tried_again_when_it_fails_in_passing(
    supabase: SupabaseStorage, hosted: FakeStorage, tmp_path: Path, way: fake_storage.Refusal | str
) -> None:
    place(supabase, hosted, "a.txt")
    hosted.break_next("download", way)
    drawn = supabase.draw(OURS, incoming_key("a.txt"), tmp_path / "drawn", 10**9)
    assert drawn.sha256 == sha256(STORY).hexdigest()


def test_what_is_kept_is_plain_bytes_whatever_its_sender_called_it(
    supabase: SupabaseStorage, hosted: FakeStorage, tmp_path: Path
) -> None:
    place(supabase, hosted, "page.html")
    drawn = supabase.draw(OURS, incoming_key("page.html"), tmp_path / "drawn", 10**9)
    supabase.adopt(OURS, drawn)
    key = f"{fake_storage.BUCKET}/{OURS}/{drawn.sha256[:2]}/{drawn.sha256}"
    assert hosted.types[key] == "application/octet-stream"


def test_a_stranger_is_not_told_that_a_folder_is_empty(hosted: FakeStorage) -> None:
    stranger = open_supabase(hosted, supabase_secret_key=fake_storage.STRANGER)
    with pytest.raises(Unavailable):
        list(stranger.walk(OURS, ""))


def test_a_name_that_the_hosted_store_cannot_have_is_not_there(supabase: SupabaseStorage, tmp_path: Path) -> None:
    missing(supabase, incoming_key("Überraschung.txt"), tmp_path / "drawn")
