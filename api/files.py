"""Files: where signed links of local storage lead. The link is the permission; there is no token."""

from __future__ import annotations

from flask import Response, send_file

from api.codes import refuse
from api.contract import Access, Room
from api.house import house
from tasks.intake import clean_name
from tasks.storage import LocalStorage

files = Room("files", "Bytes behind signed links, when they are stored on the API's own disk.")


@files.call(
    "GET",
    "/files/<token>",
    "Download by a signed link",
    access=Access.PUBLIC,
    media="application/octet-stream",
    gives_headers={"Content-Disposition": "`attachment`, with the file's real name."},
    also={206: "The range that was asked for.", 304: "Nothing has changed since the ETag in If-None-Match."},
    errors=("link_invalid", "link_expired", "file_not_found", "range_invalid"),
)
def download_file(token: str) -> Response:
    """Always an attachment, never shown in the browser's page. Takes ranges."""
    storage = house().storage
    if not isinstance(storage, LocalStorage):
        raise refuse("link_invalid", "This link is not valid.")
    path, filename, media_type = storage.open_link(token)
    response = send_file(
        path,
        mimetype=media_type,
        as_attachment=True,
        # A step may name its files after a title, which can hold what no header can.
        download_name=clean_name(filename),
        conditional=True,
        # The name of the stored file is the digest of its bytes.
        etag=path.name,
        max_age=0,
    )
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
