"""gunicorn for the endpoint on Celery: the same kind of worker as our own, see api/gunicorn.py."""

import os

from gevent import monkey

monkey.patch_all()

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "gevent"
worker_connections = 2000
loglevel = "warning"
