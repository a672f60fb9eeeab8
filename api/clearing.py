"""What uploads leave on this disk when the process that received them is killed, and who clears it away."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from tasks.storage.files import clear_staging

_log = logging.getLogger("ledgerline.clearing")


class Clearing:
    """Looks after a staging folder from `start` to `close`, every so many seconds, whatever happens in between."""

    def __init__(self, folder: Path, every_s: float) -> None:
        self._folder = folder
        self._every_s = every_s
        self._closed = threading.Event()

    def start(self) -> None:
        """Make the folder, clear it, and go on doing so in the background."""
        self._folder.mkdir(parents=True, exist_ok=True)
        clear_staging(self._folder)
        threading.Thread(target=self._keep_clearing, name="clearing", daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._closed.set()

    def _keep_clearing(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                removed = clear_staging(self._folder)
                if removed:
                    _log.info("%s uploads of processes that are gone were cleared away", removed)
            except Exception as error:
                _log.warning("clearing stumbled and goes on: %s", error)
