"""How gunicorn serves the API: `gunicorn --config api/gunicorn.py "api:create_app()"`.

One gevent worker holds a thousand open streams. More processes: set WEB_CONCURRENCY, which gunicorn reads itself.
"""

from gevent import monkey

# Before anything else is imported: psycopg and threading look once whether they are to cooperate.
monkey.patch_all()

import logging  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from api.house import house_of  # noqa: E402
from api.logs import configure  # noqa: E402
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


def _watch(worker: Any, desk: Any) -> None:
    while worker.alive:
        gevent.sleep(_TICK_S)
    desk.live.close()
