"""How gunicorn serves the API: `gunicorn --config api/gunicorn.py "api:create_app()"`.

One gevent worker holds a thousand open streams. More processes: set WEB_CONCURRENCY, which gunicorn reads itself.
"""

from gevent import monkey

# Before anything else is imported: psycopg and threading look once whether they are to cooperate.
monkey.patch_all()

import logging  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from typing import Any  # noqa: E402

# Where each process counts in files of its own. prometheus_client looks once whether there is such a folder.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
if _FOLDER not in os.environ:
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="ledgerline-metrics-")

import gevent  # noqa: E402
from prometheus_client.multiprocess import mark_process_dead  # noqa: E402

from api.house import house_of  # noqa: E402
from api.logs import configure  # noqa: E402
from api.meter import gauge  # noqa: E402
from tasks.settings import load  # noqa: E402

_settings = load()
_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host

bind = f"{_host}:{_settings.port}"
worker_class = "gevent"
worker_connections = 2000
# A worker whose loop stands still for this long is replaced.
timeout = 60
graceful_timeout = 25
# Also how long the rest of a refused upload is listened to, so that its sender gets to read the refusal.
keepalive = 5
# Filters make long addresses. As long as nginx lets them be, and as gunicorn can be told.
limit_request_line = 8190
# Requests are logged by the app, with what gunicorn cannot know.
accesslog = None
errorlog = "-"
loglevel = "warning"
proc_name = "ledgerline-web"
_TICK_S = 0.2


def post_fork(server: Any, worker: Any) -> None:
    """In the worker, before the app is made."""
    configure(_settings.log_level)


def post_worker_init(worker: Any) -> None:
    """In the worker, when the app is made: listen from now on, and let streams end when the worker is told to."""
    desk = house_of(worker.wsgi)
    desk.live.start()
    gevent.spawn(_watch, worker, desk)
    logging.getLogger("ledgerline.api").info("serving on %s", ", ".join(map(str, worker.sockets)))


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker, at its end."""
    if worker.wsgi is not None:
        house_of(worker.wsgi).send_traces()


def child_exit(server: Any, worker: Any) -> None:
    """In the arbiter, when a worker has ended: what it had in hand counts no more."""
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """In the arbiter, at the very end."""
    shutil.rmtree(os.environ[_FOLDER], ignore_errors=True)


def _watch(worker: Any, desk: Any) -> None:
    while worker.alive:
        gauge(desk)
        gevent.sleep(_TICK_S)
    desk.live.close()
