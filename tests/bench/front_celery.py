"""POST /jobs as a careful team writes it on Celery: token and body are checked by the very code that we use, membership
by a look at a table; then the ledger row is inserted, and then the task is sent."""

from __future__ import annotations

import os

from bench import plain_ledger
from bench.with_celery import run
from flask import Flask, Response, jsonify, request
from psycopg_pool import ConnectionPool

from api.incoming import read_body
from api.models.jobs import NewJob
from api.tokens import Verifier
from tasks.ledger import new_id
from tasks.settings import load

_ENTER = "select tenant_id, role from members where user_id = %s"


def create_app() -> Flask:
    """The application, for gunicorn."""
    settings = load()
    verifier = Verifier(settings)
    pool = ConnectionPool(os.environ["BENCH_URL"], kwargs={"autocommit": True}, min_size=1, max_size=8, open=True)
    app = Flask("front_celery")

    @app.get("/healthz")
    def show_alive() -> str:
        return "alive"

    @app.post("/api/v1/jobs")
    def submit_job() -> tuple[Response, int]:
        caller = verifier.verify(request.headers.get("Authorization"))
        body = read_body(NewJob, settings.max_body_bytes)
        job = str(new_id())
        with pool.connection() as connection:
            member = connection.execute(_ENTER, [caller.user_id]).fetchone()
            assert member is not None
            connection.execute(plain_ledger.SUBMIT, [job])
        run.delay(job)
        answer = {"id": job, "pipeline": body.pipeline, "status": "queued", "tenant_id": str(member[0])}
        return jsonify(answer), 202

    return app
