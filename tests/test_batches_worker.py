"""Real workers take batches in: whatever dies on the way, each item becomes one job, and no other tenant waits."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import fake_storage
import httpx
from api_play import PREFIX, make_settings, make_token, serve
from fake_storage import FakeStorage
from fixtures_storage import supabase_settings
from waiting import until
from worker_process import House

# A worker that takes in, and leaves the jobs that it makes alone.
TAKES_IN = {"worker_queues": "media"}


def counted(house: House, batch: UUID) -> dict[str, int]:
    query = "select outcome, count(*) as n from batch_items where batch_id = %s group by 1"
    return {row["outcome"]: row["n"] for row in house.play.all(query, batch)}


def wait_for_all(house: House, batch: UUID) -> dict[str, int]:
    until(lambda: "waiting" not in counted(house, batch), within=90)
    until(lambda: house.play.one("select due_at is null from batches where id = %s", batch))
    return counted(house, batch)


def incoming(house: House) -> Path:
    path = house.folder / "storage" / str(house.play.tenant) / "incoming"
    path.mkdir(parents=True, exist_ok=True)
    return path


def drop(house: House, hosted: FakeStorage, name: str) -> None:
    """A file in the incoming area of the hosted store."""
    path, key = hosted.folder / uuid4().hex, f"{fake_storage.BUCKET}/{house.play.tenant}/incoming/{name}"
    path.write_text(f"The story of {name}.")
    hosted.objects[key], hosted.types[key] = path, "text/plain"


def test_a_worker_killed_in_mid_intake_makes_no_job_twice_and_forgets_none(house: House) -> None:
    batch = house.play.add_batch(*({"params": {"mark": str(number)}} for number in range(3000)))
    worker = house.start(**TAKES_IN)
    until(lambda: counted(house, batch).get("created", 0) > 0)
    worker.kill()
    assert counted(house, batch).get("waiting", 0) > 0, "it was killed in the middle"
    house.start(**TAKES_IN)
    assert wait_for_all(house, batch) == {"created": 3000}
    assert house.play.one("select count(distinct params ->> 'mark') from jobs") == 3000
    assert house.play.one("select count(*) from jobs") == 3000
    assert house.play.drift() == []


def test_a_worker_killed_while_it_reads_paths_makes_no_document_twice(house: House) -> None:
    for number in range(150):
        (incoming(house) / f"{number}.txt").write_text(f"Story {number}.\n" * 2000)
    batch = house.play.add_batch(*({"path": f"{number}.txt"} for number in range(150)), pipeline="reading")
    worker = house.start(**TAKES_IN)
    until(lambda: counted(house, batch).get("created", 0) > 3)
    worker.kill()
    assert counted(house, batch).get("waiting", 0) > 0, "it was killed in the middle"
    house.start(**TAKES_IN)
    assert wait_for_all(house, batch) == {"created": 150}
    assert house.play.one("select count(distinct sha256) from documents") == 150
    assert house.play.one("select count(*) from documents") == 150
    assert house.play.one("select count(*) from jobs") == 150
    assert house.play.drift() == []


def test_files_become_documents_with_a_completed_job_and_leave_the_incoming_area(house: House) -> None:
    area = incoming(house)
    (area / "old").mkdir()
    (area / "old" / "Der Turm.txt").write_text("Once.")
    (area / "same.txt").write_text("Once.")
    (area / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    paths = ("old/Der Turm.txt", "same.txt", "picture.txt", "nowhere.txt")
    batch = house.play.add_batch(*({"path": path} for path in paths), pipeline="reading")
    house.start()
    assert wait_for_all(house, batch) == {"created": 1, "duplicate": 1, "refused": 2}
    items = house.play.all("select * from batch_items order by nr")
    assert [item["code"] for item in items] == [None, None, "unsupported_type", "file_not_found"]
    assert items[0]["job_id"] == items[1]["job_id"] or items[0]["outcome"] == "duplicate"
    (document,) = house.play.all("select * from documents")
    assert document["title"] in ("Der Turm", "same")
    assert house.finish(house.play.one("select id from jobs")) == ["completed"]
    until(lambda: [path.name for path in area.rglob("*") if path.is_file()] == ["picture.txt"])


def test_files_of_the_hosted_store_are_taken_in(house: House, hosted: FakeStorage) -> None:
    for number in range(5):
        drop(house, hosted, f"{number}.txt")
    batch = house.play.add_batch(*({"path": f"{number}.txt"} for number in range(5)), pipeline="reading")
    house.start(**supabase_settings(hosted), **TAKES_IN)
    assert wait_for_all(house, batch) == {"created": 5}
    until(lambda: not any("/incoming/" in key for key in hosted.objects))
    assert len(hosted.objects) == 5


def test_taking_in_goes_on_when_what_broke_it_is_gone(house: House) -> None:
    worker = house.start(**TAKES_IN)
    house.play.connection.execute("alter function ledger.admit_items rename to admit_items_away")
    batch = house.play.add_batch(*({"params": {"mark": str(number)}} for number in range(5)))
    until(lambda: worker.says("intake stumbled"))
    house.play.connection.execute("alter function ledger.admit_items_away rename to admit_items")
    assert wait_for_all(house, batch) == {"created": 5}


def test_a_store_that_is_away_makes_paths_wait(house: House, hosted: FakeStorage) -> None:
    drop(house, hosted, "a.txt")
    hosted.break_next("upload", fake_storage.OVER_QUOTA, times=99)
    batch = house.play.add_batch(*([{"path": "a.txt"}]), pipeline="reading")
    worker = house.start(**supabase_settings(hosted), **TAKES_IN)
    until(lambda: worker.says("waits for the store"))
    assert counted(house, batch) == {"waiting": 1}
    hosted.faults.clear()
    assert wait_for_all(house, batch) == {"created": 1}


def test_a_file_that_cannot_be_read_does_not_hold_up_the_others(house: House) -> None:
    (incoming(house) / "a.txt").write_text("Once.")
    (incoming(house) / "b.txt").write_text("Twice.")
    # A file lies where the folder of that content belongs.
    (incoming(house).parent / sha256(b"Once.").hexdigest()[:2]).write_text("")
    batch = house.play.add_batch(*([{"path": "a.txt"}, {"path": "b.txt"}]), pipeline="reading")
    worker = house.start(**TAKES_IN)
    assert wait_for_all(house, batch) == {"created": 1, "refused": 1}
    assert house.play.one("select code from batch_items where path = 'a.txt'") == "internal_error"
    assert worker.says("could not be taken in")


def test_lines_sent_to_a_real_api_become_jobs_of_a_real_worker(house: House, tmp_path: Path) -> None:
    settings = make_settings(house.url, house.folder / "storage")
    bearer = {"Authorization": f"Bearer {make_token(house.play.user)}", "Content-Type": "application/x-ndjson"}
    lines = (json.dumps({"params": {"width": 1, "mark": str(number)}}).encode() + b"\n" for number in range(500))
    house.start()
    with serve(settings, tmp_path / "log") as api, httpx.Client(base_url=api.url + PREFIX, headers=bearer) as client:
        batch = client.post("/batches?pipeline=one", content=lines, timeout=30).json()
        path = f"/batches/{batch['id']}"
        until(lambda: client.get(path).json()["terminal"], within=60)
        seen = client.get(path).json()
    assert (seen["outcomes"]["created"], seen["jobs"]["completed"], seen["progress"]["percent"]) == (500, 500, 100)
    assert house.play.drift() == []


def test_one_job_of_a_quiet_tenant_is_not_behind_a_batch(house: House) -> None:
    batch = house.play.add_batch(*({"params": {"mark": str(number)}} for number in range(600)), pipeline="one")
    house.start(**TAKES_IN)
    assert wait_for_all(house, batch) == {"created": 600}
    quiet = house.play.submit("one", tenant_id=house.play.add_tenant())
    house.start()
    assert house.finish(quiet) == ["completed"]
    ended_before = house.play.one(
        "select count(*) from jobs where batch_id = %s and finished_at < (select finished_at from jobs where id = %s)",
        batch,
        quiet,
    )
    assert ended_before < 100
