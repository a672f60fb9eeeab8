"""Bytes that no row names any more are deleted, and none that a row names or somebody is just storing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from api_play import PREFIX, ROOT, Front, make_settings, serve
from ledger_play import Play, items
from processes import ended
from psycopg.rows import dict_row
from waiting import until
from worker_process import House

from api import clearing
from api.clearing import Clearing
from tasks import ledger
from tasks.engine.call import digest as digest_text
from tasks.engine.call import encode
from tasks.storage.files import arriving, clear_staging

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
FORM = 'Content-Disposition: form-data; name="file"; filename="story.txt"'


def announce(play: Play, *digests: str, for_s: float = 60, tenant: UUID | None = None) -> None:
    ledger.announce_bytes(play.connection, tenant or play.tenant, list(digests), for_s)


def take(play: Play, later_s: float = 3600) -> set[str]:
    """What must go by then."""
    play.pass_time(later_s)
    (row,) = play.all("select * from ledger.take_loose_bytes(100)")
    play.pass_time(0)
    return {blob["sha256"] for blob in row["nameless"]}


# What is taken -------------------------------------------------------------------------------------


def test_what_was_announced_and_never_named_is_taken_when_its_time_is_over(play: Play) -> None:
    announce(play, ONE, for_s=600)
    assert take(play, 590) == set()
    announce(play, ONE, for_s=1)
    assert take(play, 590) == set()
    assert take(play, 610) == {ONE}
    assert take(play, 610) == set()


def test_what_a_row_names_by_then_is_kept_and_looked_at_once(play: Play) -> None:
    content = "Once."
    sha256 = play.one("select encode(sha256(%s::bytea), 'hex')", content)
    announce(play, sha256, ONE)
    play.add_document(content)
    assert take(play) == {ONE}
    assert play.one("select count(*) from ops.loose_bytes") == 0


def test_another_tenants_row_keeps_nothing(play: Play) -> None:
    sha256 = play.one("select d.sha256 from documents d where d.id = %s", play.add_document(tenant=play.add_tenant()))
    announce(play, sha256)
    assert take(play) == {sha256}


def complete_with_pointers(play: Play) -> UUID:
    job = play.submit("line")
    file = {"name": "a.txt", "media_type": "text/plain", "bytes": 1, "sha256": TWO}
    play.complete(play.begin(), artifacts=[file], blobs=[ONE, TWO])
    return job


def test_what_results_and_artifacts_point_to_is_kept(play: Play) -> None:
    complete_with_pointers(play)
    announce(play, ONE, TWO, THREE)
    assert take(play) == {THREE}


def test_bytes_are_marked_by_whatever_way_their_rows_go(play: Play) -> None:
    complete_with_pointers(play)
    play.connection.execute("update step_results set used_at = used_at - interval '1 year'")
    play.connection.execute("delete from jobs")
    assert take(play) == set()
    assert play.one("select ledger.prune_results(interval '90 days')") == 1
    assert take(play, 30) == set()
    assert take(play) == {ONE, TWO}
    play.add_document("Once.")
    play.connection.execute("delete from tenants")
    assert take(play) == {play.one("select encode(sha256('Once.'), 'hex')")}


def test_bytes_of_a_deleted_document_stay_with_another_that_has_them(play: Play) -> None:
    one, two = play.add_document("same"), play.add_document("same")
    ledger.delete_document(play.connection, one, play.tenant, play.user)
    assert take(play) == set()
    ledger.delete_document(play.connection, two, play.tenant, play.user)
    assert len(take(play)) == 1


def test_while_it_is_not_known_what_a_result_points_to_nothing_is_taken(play: Play) -> None:
    complete_with_pointers(play)
    announce(play, THREE)
    play.connection.execute("update step_results set blobs = null")
    assert take(play) == set()
    result = play.one("select id from ledger.unread_results(5)")
    play.all("select ledger.note_blobs(%s, %s)::text", result, [ONE, TWO])
    assert take(play) == {THREE}


def test_whoever_stores_what_is_being_deleted_waits_until_it_is_gone(real_play: Play, database_url: str) -> None:
    announce(real_play, ONE, for_s=0)

    def announce_later() -> None:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            announce(real_play.on(connection), ONE)

    with psycopg.connect(database_url, row_factory=dict_row) as collector, ThreadPoolExecutor(1) as hand:
        assert take(real_play.on(collector)) == {ONE}
        storing = hand.submit(announce_later)
        until(lambda: real_play.one("select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == 1)
        collector.commit()
        storing.result(30)
    assert take(real_play, 30) == set()


def test_a_second_collector_passes_over_what_the_first_has_in_hand(real_play: Play, database_url: str) -> None:
    announce(real_play, ONE, for_s=0)
    with psycopg.connect(database_url, row_factory=dict_row) as collector:
        assert take(real_play.on(collector)) == {ONE}
        assert take(real_play) == set()
        collector.rollback()
    assert take(real_play) == {ONE}


# Real workers --------------------------------------------------------------------------------------


def keep(house: House, sha256: str, content: bytes = b"x") -> Path:
    path = house.folder / "storage" / str(house.play.tenant) / sha256[:2] / sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_due(house: House) -> None:
    house.play.connection.execute("update ops.loose_bytes set due_at = now()")


def nothing_is_listed(house: House) -> bool:
    return house.play.one("select count(*) from ops.loose_bytes") == 0


def test_a_worker_deletes_all_that_a_deleted_document_has_left(house: House) -> None:
    play, folder = house.play, house.folder / "storage" / str(house.play.tenant)
    house.start(sweep_interval_s=0.2)
    kept, content = play.add_document("Another story."), "It was a dark and stormy night."
    sha256 = play.one("select sha256 from documents where id = %s", kept)
    other = keep(house, sha256)
    document = play.add_document(content)
    keep(house, play.one("select sha256 from documents where id = %s", document), content.encode())
    assert house.finish(play.submit("telling", document_id=document, params={})) == ["completed"]
    assert nothing_is_listed(house)
    assert house.finish(play.submit("reading", document_id=document, params={})) == ["completed"]
    written = {row["sha256"] for row in play.all("select sha256 from artifacts")}
    assert {row["sha256"] for row in play.all("select sha256 from ops.loose_bytes")} == written
    make_due(house)
    until(lambda: nothing_is_listed(house))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 3
    ledger.delete_document(play.connection, document, play.tenant, play.user)
    make_due(house)
    until(lambda: nothing_is_listed(house))
    assert [path for path in folder.rglob("*") if path.is_file()] == [other]


def test_a_worker_reads_what_old_results_point_to_before_anything_is_deleted(house: House) -> None:
    play = house.play
    job = play.submit("fan")
    long = {"value": "x" * 9000}
    text = encode([{"text": {"sha256": ONE, "bytes": 1}}, long])
    play.complete(play.begin(), items=items(2), blob={"sha256": digest_text(text), "bytes": len(text)})
    result = play.run(job, "spread")["result_id"]
    play.connection.execute("update step_results set blobs = null where id = %s", [result])
    pointed = {ONE, digest_text(text), digest_text(encode(long))}
    for sha256 in (*pointed, THREE):
        keep(house, sha256, text.encode())
    announce(play, *pointed, THREE, for_s=0)
    house.start(sweep_interval_s=0.2)
    until(lambda: nothing_is_listed(house))
    left = {path.name for path in (house.folder / "storage" / str(play.tenant)).rglob("*") if path.is_file()}
    assert left == pointed
    assert set(play.one("select blobs from step_results where id = %s", result)) == pointed


def test_collecting_goes_on_when_what_broke_it_is_gone(house: House) -> None:
    path = keep(house, ONE)
    path.unlink()
    path.mkdir()
    announce(house.play, ONE, for_s=0)
    worker = house.start(sweep_interval_s=0.2)
    until(lambda: worker.says("collect stumbled"))
    assert not nothing_is_listed(house)
    path.rmdir()
    path.write_bytes(b"x")
    until(lambda: nothing_is_listed(house) and not path.exists())


def test_a_killed_worker_leaves_the_rest_to_the_next(house: House) -> None:
    worker = house.start(sweep_interval_s=0.2)
    worker.freeze()
    path = keep(house, ONE)
    announce(house.play, ONE, for_s=0)
    staged = house.folder / "storage" / "staging" / "tmp-left-behind"
    staged.write_bytes(b"half a result")
    os.utime(staged, (1, 1))
    worker.kill()
    assert path.exists()
    house.start(sweep_interval_s=0.2)
    until(lambda: not path.exists() and not staged.exists())


# Staging -------------------------------------------------------------------------------------------


def test_what_a_living_process_stages_is_left_alone_and_what_a_dead_one_left_is_cleared(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from tasks.storage.files import arriving\n"
        "with arriving(pathlib.Path(sys.argv[1]) / 'x', staging=pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write(b'half'); part.flush(); print('staged', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"staged\n"
    (left,) = tmp_path.iterdir()
    os.utime(left, (1, 1))
    assert clear_staging(tmp_path) == 0
    process.kill()
    process.wait(20)
    assert clear_staging(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_this_moment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "upload-new").write_bytes(b"")
    assert clear_staging(tmp_path) == 0
    with arriving(tmp_path / "target", staging=tmp_path) as part:
        part.write(b"whole")
    assert (tmp_path / "target").read_bytes() == b"whole"


def test_clearing_goes_on_when_it_stumbles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def stumble(folder: Path) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is away")
        return clear_staging(folder)

    monkeypatch.setattr(clearing, "clear_staging", stumble)
    looking = Clearing(tmp_path, 0.01)
    looking.start()
    until(lambda: len(calls) > 3)
    left = tmp_path / "upload-left"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    until(lambda: not left.exists())
    looking.close()


# Killed in the middle of an upload -------------------------------------------------------------------


def start_client(url: str, token: str) -> subprocess.Popen[bytes]:
    """A client as a process: it sends the half of an upload, and waits."""
    code = f"""
import socket, sys, time
host, port = sys.argv[1].removeprefix("http://").split(":")
line = socket.create_connection((host, int(port)))
head = "POST {PREFIX}/documents HTTP/1.1", "Host: x", "Authorization: " + sys.argv[2], "Content-Length: 4000000"
head += ("Content-Type: multipart/form-data; boundary=b", "", "")
line.sendall("\\r\\n".join(head).encode())
line.sendall(b'--b\\r\\n{FORM}\\r\\n\\r\\n' + b'A line of text.\\n' * 100000)
time.sleep(60)
"""
    return subprocess.Popen([sys.executable, "-c", code, url, token])


def staged_in(folder: Path) -> Callable[[], list[Path]]:
    return lambda: [path for path in (folder / "staging").glob("upload-*") if path.stat().st_size > 100_000]


def test_a_client_killed_in_mid_upload_leaves_no_row_and_no_bytes(front: Front, tmp_path: Path) -> None:
    settings = make_settings(front.settings.database_url.get_secret_value(), tmp_path / "storage")
    with serve(settings, tmp_path / "api.log") as served:
        client = start_client(served.url, front.person().bearer()["Authorization"])
        until(staged_in(settings.storage_path))
        client.send_signal(signal.SIGKILL)
        client.wait(20)
        until(lambda: not [path for path in settings.storage_path.rglob("*") if path.is_file()])
    assert front.play.one("select count(*) from documents") == 0
    assert front.play.one("select count(*) from ops.loose_bytes") == 0


def test_an_api_killed_in_mid_upload_leaves_nothing_after_the_next_sweep_of_another(
    front: Front, tmp_path: Path
) -> None:
    url = front.settings.database_url.get_secret_value()
    settings = make_settings(url, tmp_path / "storage", sweep_interval_s=0.2)
    with serve(settings, tmp_path / "other.log"), serve(settings, tmp_path / "killed.log") as killed:
        client = start_client(killed.url, front.person().bearer()["Authorization"])
        (upload,) = until(staged_in(settings.storage_path))
        worker = killed.worker_pid
        killed.process.send_signal(signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        until(lambda: ended(worker))
        assert upload.exists()
        os.utime(upload, (1, 1))
        until(lambda: not upload.exists())
        client.kill()
        client.wait(20)
    assert front.play.one("select count(*) from documents") == 0
    assert not [path for path in settings.storage_path.rglob("*") if path.is_file()]
