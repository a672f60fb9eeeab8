"""What uploads that nobody confirmed have left in the store is removed by whichever worker's turn it is."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from waiting import until
from worker_process import House

from tasks import ledger


def announce(house: House, ago_s: float) -> tuple[UUID, Path]:
    """An upload that expired so many seconds ago, and its bytes."""
    play, upload = house.play, ledger.new_id()
    announced = {"id": upload, "tenant_id": play.tenant, "user_id": play.user, "filename": "a.txt", "title": "a"}
    ledger.open_upload(play.connection, announced | {"bytes": 5, "sha256": None, "ttl_s": -ago_s})
    path = house.folder / "storage" / str(play.tenant) / "uploads" / str(upload)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"hello")
    return upload, path


def test_the_bytes_of_an_expired_upload_go_and_others_stay(house: House) -> None:
    _, over = announce(house, ago_s=90)
    _, confirmed = announce(house, ago_s=90)
    house.play.connection.execute("update uploads set status = 'confirmed' where id = %s", [confirmed.name])
    _, open_still = announce(house, ago_s=-600)
    house.start()
    until(lambda: not over.exists() and not confirmed.exists())
    until(lambda: house.play.one("select count(*) from uploads where cleared_at is not null") == 2)
    assert open_still.read_bytes() == b"hello"
    house.play.connection.execute("update uploads set cleared_at = now() - interval '31 days' where status = 'open'")
    until(lambda: house.play.one("select count(*) from uploads") == 1)


def test_clearing_goes_on_when_what_broke_it_is_gone(house: House) -> None:
    _, path = announce(house, ago_s=90)
    path.unlink()
    path.mkdir()
    worker = house.start()
    until(lambda: worker.says("uploads stumbled"))
    assert house.play.one("select count(*) from uploads where cleared_at is null") == 1
    path.rmdir()
    path.write_bytes(b"hello")
    until(lambda: house.play.one("select count(*) from uploads where cleared_at is null") == 0)
    assert not path.exists()


def test_a_killed_worker_leaves_the_rest_to_the_next(house: House) -> None:
    worker = house.start()
    worker.freeze()
    _, path = announce(house, ago_s=90)
    worker.kill()
    assert path.exists()
    house.start()
    until(lambda: not path.exists())
