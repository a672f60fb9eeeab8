"""Stores for tests: a folder, and a bucket of the imitated Supabase Storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_storage
import pytest
from fake_storage import FakeStorage

from tasks.settings import Settings, load
from tasks.storage import LocalStorage
from tasks.storage.client import Patience
from tasks.storage.supabase import SupabaseStorage

# Long enough for a busy machine to answer in, short enough to wait for.
IMPATIENT = Patience(connect_s=5, silence_s=1.0, grace_s=1.0, slowest=64 * 1024, waits_s=(0.0, 0.0))


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[FakeStorage]:
    """The imitation, running on a loopback socket."""
    folder = tmp_path / "hosted"
    folder.mkdir()
    with fake_storage.serve(folder) as fake:
        yield fake


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return open_local(tmp_path / "store")


@pytest.fixture
def supabase(hosted: FakeStorage) -> SupabaseStorage:
    return open_supabase(hosted)


def open_local(folder: Path) -> LocalStorage:
    """A store in a folder."""
    return LocalStorage(store_settings(storage="local", storage_path=folder, link_secret="s" * 32))


def open_supabase(hosted: FakeStorage, patience: Patience = IMPATIENT, **changes: Any) -> SupabaseStorage:
    """A store in the imitation. changes: settings by name."""
    return SupabaseStorage(store_settings(**supabase_settings(hosted) | changes), patience)


def supabase_settings(hosted: FakeStorage) -> dict[str, Any]:
    """The settings that lead to the imitation, by name."""
    return {"storage": "supabase", "supabase_url": hosted.url, "supabase_secret_key": fake_storage.SECRET}


def store_settings(**changes: Any) -> Settings:
    return load(database_url="postgresql://nobody@127.0.0.1:1/nothing", **changes)
