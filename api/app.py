"""The application factory. Each app has its own house, so every test can have its own app."""

from __future__ import annotations

import time
from threading import BoundedSemaphore

from flask import Flask, Response, g, request

from api import failures
from api.account import account
from api.artifacts import artifacts
from api.batches import batches
from api.contract import Access, declared_call
from api.cors import answer_preflight, open_to_origin
from api.docs import docs
from api.documents import documents
from api.events import events
from api.export import export
from api.files import files
from api.health import health
from api.house import House, house
from api.incoming import REQUEST_ID, limit_silence, request_id
from api.jobs import jobs
from api.keys import keys
from api.live import Hub
from api.logs import log_when_sent
from api.meter import count_when_sent
from api.metrics import metrics
from api.paths import PREFIX
from api.people import admit, identify
from api.rates import tell_rate
from api.review import review
from api.signed_uploads import uploads
from api.spans import begin_span, end_span_when_sent
from api.streams import streams
from api.tickets import admit_by_ticket
from api.together import open_entrance_rounds, open_event_rounds, open_submission_rounds
from api.tokens import Verifier
from api.webhooks import webhooks
from tasks.db import open_pool
from tasks.settings import Settings, load
from tasks.storage import open_storage
from tasks.tracing import open_tracing

ROOMS = (
    documents,
    uploads,
    jobs,
    batches,
    review,
    export,
    events,
    streams,
    artifacts,
    files,
    account,
    keys,
    webhooks,
    health,
    metrics,
    docs,
)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings | None = None) -> Flask:
    """The API as a WSGI app. Raises SettingsInvalid when it could not tell friend from foe.

    Connects in the background, and listens for live events once somebody follows a job: nothing here needs the database
    to be there yet.
    """
    settings = settings or load()
    app = Flask("api", static_folder=None)
    # Forms and bodies are read by hand, with limits of their own; this one is for what nobody thought of.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    _furnish(settings).install(app)
    for room in ROOMS:
        app.register_blueprint(room, url_prefix=PREFIX)
    for room in (health, metrics):
        app.register_blueprint(room, name=f"{room.name}_at_root")
    failures.register(app)
    app.before_request(_admit)
    app.after_request(_dress)
    return app


def _furnish(settings: Settings) -> House:
    tokens = Verifier(settings)
    pool = open_pool(settings.database_url.get_secret_value(), settings.database_pool_size)
    house = House(
        settings=settings,
        pool=pool,
        storage=open_storage(settings),
        tokens=tokens,
        live=Hub(settings.direct_url, pool),
        staging=settings.storage_path.resolve() / "staging",
        exports=BoundedSemaphore(settings.export_connections),
        tracing=open_tracing(settings, "ledgerline-web"),
        entrances=open_entrance_rounds(pool),
        readings=open_event_rounds(pool),
        submissions=open_submission_rounds(pool),
    )
    house.open()
    return house


def _admit() -> Response | None:
    """Nobody gets past here with nothing to show, except to what is declared public: forgetting closes, never opens."""
    g.started = time.monotonic()
    request_id()
    begin_span()
    limit_silence()
    preflight = answer_preflight()
    if preflight is not None or request.routing_exception is not None:
        return preflight
    call = declared_call()
    by_ticket = call is not None and call.ticket and admit_by_ticket(house())
    if not by_ticket and (call is None or call.access is not Access.PUBLIC):
        admit(house(), request.headers.get("Authorization"))
    if call is None:
        identify(house(), g.asker)
    return None


def _dress(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[REQUEST_ID] = request_id()
    tell_rate(response)
    open_to_origin(response)
    return log_when_sent(count_when_sent(end_span_when_sent(response)))
