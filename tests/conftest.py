"""What every test can ask for. Databases come from fixtures_database, servers from fixtures_embedded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["fixtures_database", "fixtures_embedded", "fixtures_ledger", "fixtures_storage", "fixtures_api"]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of test material, which is not part of the repository. Skips the test where it is absent."""
    folder = Path(os.environ.get("LEDGERLINE_CORPORA") or ROOT.parent / "shared" / "corpora")
    if not folder.is_dir():
        pytest.skip("needs the test corpora: set LEDGERLINE_CORPORA")
    return folder


@pytest.fixture(scope="session")
def sample() -> Path:
    """The story that `make run` analyses."""
    return ROOT / "docs" / "samples" / "the-lamplighters-ledger.md"
