"""Export: everything that was finalised, in one answer of any length."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
from flask import Response, request

from api.contract import JSON, Access, Room
from api.house import house
from api.incoming import request_id
from api.models.export import Export, ExportQuery
from api.people import Member
from api.sheets import write_csv, write_json
from api.walk import Walk, WalkTooLong

export = Room("export", "Everything that was finalised, for other programs and for spreadsheets.")

CSV = "text/csv"
_WRITERS = {"json": (JSON, write_json), "csv": (CSV, write_csv)}
# A reader that has not taken one piece by then is gone, or might as well be.
_SEND_S = 30

_log = logging.getLogger("ledgerline.export")


@export.call(
    "GET",
    "/export",
    "Export finalised documents",
    access=Access.READ,
    query=ExportQuery,
    gives=Export,
    other_media=(CSV,),
    gives_headers={"Content-Disposition": "`attachment`, with a file name."},
    errors=("exports_busy",),
)
def export_documents(member: Member, query: ExportQuery) -> Response:
    """All finalised documents of the tenant as they are at this moment, in the order they were finalised. Sent while it
    is read, however long it is.

    If something breaks in the middle, the connection is cut before the answer's end: HTTP clients report it, and the
    JSON is not closed. While as many are being sent as may be, others are refused with `exports_busy`.
    """
    asked = query.model_dump(exclude={"format"})
    walk = Walk(house(), member.caller, "export_documents", tenant_id=member.tenant_id, **asked)
    _limit_patience(house().settings.export_timeout_s)
    media, write = _WRITERS[query.format]
    response = Response(_tell(walk, write(walk.strides()), request_id()), mimetype=media)
    response.headers["Content-Disposition"] = f"attachment; filename=finalised-documents.{query.format}"
    # Also called when the client goes away before the first piece was asked for.
    response.call_on_close(walk.close)
    return response


def _tell(walk: Walk, pieces: Iterator[str], request: str) -> Iterator[str]:
    """The pieces. What breaks them off goes on to the server, which cuts the connection: a reader must notice."""
    try:
        yield from pieces
    except (psycopg.Error, WalkTooLong) as error:
        _log.warning("request %s: the export broke off: %s", request, type(error).__name__)
        raise
    finally:
        walk.close()


def _limit_patience(export_timeout_s: float) -> None:
    """Give up on a reader that stopped reading, instead of keeping its place for ever."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(min(_SEND_S, export_timeout_s))
