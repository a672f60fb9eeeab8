"""Documents over HTTP: what comes in whole is kept whole, and what does not leaves nothing."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from typing import Any
from uuid import UUID

import psycopg
import pytest
from api_play import Front, Person, error_code, finish_job

from api.house import house_of
from tasks import ledger
from tasks.intake import clean_name

STORY = b"Once upon a time there was a lamplighter.\n" * 50


def nothing_is_left(front: Front) -> None:
    assert front.play.one("select count(*) from documents") == 0
    assert front.play.one("select count(*) from jobs") == 0
    assert front.stored == []


def docx(text: str = "Once.") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("word/document.xml", f"<w:document>{text}</w:document>")
    return data.getvalue()


# What comes in -------------------------------------------------------------------------------------


def test_an_upload_is_kept_with_all_that_is_known_about_it(front: Front) -> None:
    person = front.person("editor")
    answer = person.upload(STORY, "Überraschung im Turm.txt")
    document = answer.get_json()
    assert (answer.status_code, document["status"], document["job"]) == (201, "uploaded", None)
    assert answer.headers["Location"] == document["links"]["self"] == f"/api/v1/documents/{document['id']}"
    assert (document["title"], document["filename"]) == ("Überraschung im Turm", "Überraschung im Turm.txt")
    assert (document["kind"], document["media_type"]) == ("txt", "text/plain")
    assert (document["bytes"], document["sha256"]) == (len(STORY), hashlib.sha256(STORY).hexdigest())
    assert document["uploaded_by"] == str(person.user)
    (path,) = front.stored
    assert path.read_bytes() == STORY
    seen = person.get(f"/documents/{document['id']}").get_json()
    assert seen == {name: value for name, value in document.items() if name not in ("job", "duplicate_of")}


def test_bytes_are_announced_before_they_are_stored(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    storage = house_of(front.app).storage
    put = storage.put

    def look_and_put(*bytes_of: Any) -> None:
        listed.extend(row["sha256"] for row in front.play.all("select sha256 from ops.loose_bytes"))
        put(*bytes_of)

    monkeypatch.setattr(storage, "put", look_and_put)
    sha256 = front.person().upload(STORY).get_json()["sha256"]
    assert listed == [sha256]


def test_an_upload_starts_its_pipeline_in_the_same_transaction(front: Front) -> None:
    person = front.person()
    answer = person.upload(STORY, query="?pipeline=reading", title="Mine", params="{}").get_json()
    assert (answer["title"], answer["job"]["pipeline"]) == ("Mine", "reading")
    assert answer["job"]["document_id"] == answer["id"]
    births = front.play.all("select d.xmin::text as d, j.xmin::text as j from documents d, jobs j")
    finish_job(front.play, answer["job"]["id"])
    assert len(births) == 1
    assert person.get(f"/jobs?document_id={answer['id']}").get_json()["jobs"][0]["status"] == "completed"


def test_the_kind_is_told_by_the_content(front: Front) -> None:
    assert front.person().upload(docx(), "story.docx").get_json()["kind"] == "docx"
    assert front.person().upload(b"%PDF-1.7\n%x\n", "no ending at all").get_json()["kind"] == "pdf"


def test_the_same_bytes_twice_are_two_documents_and_stored_once(front: Front) -> None:
    person = front.person()
    first, second = (person.upload(STORY).get_json()["id"] for _ in range(2))
    assert first != second
    assert len(front.stored) == 1


def test_documents_are_listed_newest_first(front: Front) -> None:
    person = front.person()
    made = [person.upload(STORY + bytes([65 + n])).get_json()["id"] for n in range(3)]
    page = person.get("/documents?limit=2").get_json()
    rest = person.get(f"/documents?limit=2&cursor={page['next_cursor']}").get_json()
    assert [one["id"] for one in page["documents"] + rest["documents"]] == made[::-1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("C:\\Users\\me\\Story.docx", "Story.docx"),
        ("../../etc/passwd", "passwd"),
        ("a\x00b\tc\u202etxt.exe", "a b c txt.exe"),
        ("  ", "document"),
        ("e\u0301.txt", "é.txt"),
        ("x" * 600 + ".docx", "x" * 495 + ".docx"),
        ("half \ud800 pair.md", "half pair.md"),
    ],
)
def test_file_names_are_made_safe_to_show(given: str, kept: str) -> None:
    assert clean_name(given) == kept


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "status", "code"),
    [
        (b"", "story.txt", 422, "empty_file"),
        (b"\x00" * 100, "story.txt", 422, "empty_file"),
        (STORY, "story.pdf", 422, "type_mismatch"),
        (b"%PDF-1.7", "story.docx", 422, "type_mismatch"),
        (bytes(range(256)) * 20, "story.txt", 422, "not_text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "story.docx", 415, "unsupported_type"),
        (STORY, "story.xyz", 415, "unsupported_type"),
        (b"PK\x03\x04" + b"broken" * 10, "story.docx", 422, "corrupt_file"),
        (b"x" * (2 * 1024 * 1024 + 1), "story.txt", 413, "file_too_large"),
        (b"x" * (4 * 1024 * 1024), "story.txt", 413, "file_too_large"),
    ],
    ids=[
        "0 bytes",
        "zeros",
        "not a PDF",
        "not a DOCX",
        "not text",
        "picture",
        "ending",
        "no zip",
        "a byte over",
        "over",
    ],
)
def test_a_file_that_cannot_be_used_is_refused(front: Front, data: bytes, name: str, status: int, code: str) -> None:
    answer = front.person().upload(data, name, query="?pipeline=reading")
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert answer.get_json()["error"]["message"].endswith(".")
    nothing_is_left(front)


def test_a_zip_bomb_is_refused_at_the_door(front: Front) -> None:
    bomb = bytearray(docx())
    struct.pack_into("<L", bomb, bomb.rindex(b"PK\x05\x06") + 12, 100 * 1024 * 1024)
    answer = front.person().upload(bytes(bomb), "story.docx")
    assert (answer.status_code, error_code(answer)) == (422, "zip_bomb")
    nothing_is_left(front)


@pytest.mark.parametrize(
    ("query", "fields", "status", "code"),
    [
        ("?pipeline=none_such", {}, 422, "unknown_pipeline"),
        ("?pipeline=", {}, 422, "request_invalid"),
        ("?pipelines=reading", {}, 422, "request_invalid"),
        ("?pipeline=reading", {"params": '{"x": 1}'}, 422, "params_invalid"),
        ("?pipeline=reading", {"params": "[]"}, 422, "params_invalid"),
        ("?pipeline=reading", {"params": "{"}, 400, "json_broken"),
        ("", {"params": '{"x": 1}'}, 422, "params_invalid"),
        ("?pipeline=line", {}, 422, "document_not_accepted"),
        ("", {"title": "x" * 501}, 422, "request_invalid"),
        ("", {"colour": "red"}, 422, "request_invalid"),
        ("", {"params": "x" * 300_000}, 413, "body_too_large"),
    ],
)
def test_an_upload_with_a_wrong_wish_leaves_nothing(
    front: Front, query: str, fields: dict[str, str], status: int, code: str
) -> None:
    answer = front.person().upload(STORY, query=query, **fields)
    assert (answer.status_code, error_code(answer)) == (status, code)
    nothing_is_left(front)


def send(person: Person, body: bytes, content_type: str = "multipart/form-data; boundary=b") -> Any:
    return person.post("/documents", data=body, content_type=content_type)


PART = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (STORY, "text/plain", 415, "media_type_unsupported"),
        (b"{}", "application/json", 415, "media_type_unsupported"),
        (STORY, "multipart/form-data", 400, "multipart_broken"),
        (b"", "multipart/form-data; boundary=b", 400, "file_missing"),
        (STORY, "multipart/form-data; boundary=b", 400, "multipart_broken"),
        (PART % (b"file", b"a.txt", STORY), "multipart/form-data; boundary=b", 400, "multipart_broken"),
        (PART % (b"document", b"a.txt", STORY) + b"--b--\r\n", "multipart/form-data; boundary=b", 400, "file_missing"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n',
         "multipart/form-data; boundary=b", 400, "file_missing"),
        (PART % (b"file", b"a.txt", STORY) + PART % (b"file", b"b.txt", STORY) + b"--b--\r\n",
         "multipart/form-data; boundary=b", 400, "one_file_only"),
        ((PART % (b"x", b"", b"")).replace(b'; filename=""', b"") * 20 + b"--b--\r\n",
         "multipart/form-data; boundary=b", 413, "body_too_large"),
    ],
    ids=[
        "text", "JSON", "no boundary", "empty", "no parts", "cut short", "other field", "no file", "two", "many fields",
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(front: Front, body: bytes, content_type: str, status: int, code: str) -> None:
    answer = send(front.person(), body, content_type)
    assert (answer.status_code, error_code(answer)) == (status, code)
    nothing_is_left(front)


def test_an_unknown_document_is_not_found(front: Front) -> None:
    answer = front.person().get(f"/documents/{ledger.new_id()}")
    assert (answer.status_code, error_code(answer)) == (404, "document_not_found")


# What breaks on the way ----------------------------------------------------------------------------


def test_a_database_that_fails_in_the_middle_leaves_nothing(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise psycopg.OperationalError("gone")

    monkeypatch.setattr(ledger, "submit", fail)
    answer = front.person().upload(STORY, query="?pipeline=reading")
    assert (answer.status_code, error_code(answer)) == (503, "database_unavailable")
    nothing_is_left(front)


def test_a_store_that_fails_in_the_middle_leaves_nothing(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_of(front.app).storage, "put", lambda *_: 1 / 0)
    answer = front.person().upload(STORY, query="?pipeline=reading")
    assert (answer.status_code, error_code(answer)) == (500, "internal_error")
    assert "division" not in answer.text
    nothing_is_left(front)


def test_nobody_sees_a_document_before_its_bytes_are_there(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    person, storage = front.person(), house_of(front.app).storage
    put = storage.put

    def look_and_put(*bytes_of: Any) -> None:
        seen.append(person.get("/documents").get_json()["documents"])
        put(*bytes_of)

    monkeypatch.setattr(storage, "put", look_and_put)
    document = UUID(person.upload(STORY).get_json()["id"])
    assert seen == [[]]
    assert json.loads(person.get("/documents").text)["documents"][0]["id"] == str(document)
