"""Artifacts: the files that jobs make."""

from __future__ import annotations

from uuid import UUID

from flask import Response, request

from api.codes import refuse
from api.contract import Access, Reply, Room
from api.house import house
from api.jobs_state import job_not_found
from api.models.artifacts import ArtifactLink, ArtifactQuery, Artifacts, ArtifactsPage
from api.paging import cut, read_cursor
from api.people import Member
from api.reading import read, read_one
from api.rows import show_artifact

artifacts = Room("artifacts", "Files that jobs make. They are downloaded by links that need no token and soon expire.")


@artifacts.call(
    "GET",
    "/jobs/<uuid:job_id>/artifacts",
    "List a job's artifacts",
    access=Access.READ,
    query=ArtifactsPage,
    gives=Artifacts,
    errors=("job_not_found", "cursor_invalid"),
)
def list_artifacts(member: Member, job_id: UUID, query: ArtifactsPage) -> Artifacts:
    """Oldest first. They appear while the job runs."""
    page = {"after": read_cursor(query.cursor), "most": query.limit + 1}
    rows = read(house(), member.caller, "api_artifacts", job_id=job_id, tenant_id=member.tenant_id, **page)
    if not rows:
        raise job_not_found()
    rows, cursor = cut([row for row in rows if row["id"] is not None], query.limit)
    return Artifacts(artifacts=[show_artifact(row) for row in rows], next_cursor=cursor)


@artifacts.call(
    "GET",
    "/artifacts/<uuid:artifact_id>",
    "Download an artifact",
    access=Access.READ,
    query=ArtifactQuery,
    gives=ArtifactLink,
    also={302: "`Location` is the link."},
    errors=("artifact_not_found", "file_not_found", "storage_unavailable"),
)
def get_artifact(member: Member, artifact_id: UUID, query: ArtifactQuery) -> Reply | Response:
    """Redirects to a short-lived link. With `redirect=0`, or when JSON is what you accept, gives the link instead."""
    desk = house()
    row = read_one(desk, member.caller, "api_artifact", artifact_id=artifact_id, tenant_id=member.tenant_id)
    if row is None:
        raise refuse("artifact_not_found", "There is no such artifact.")
    url = desk.storage.link(member.tenant_id, row["sha256"], row["name"], row["media_type"])
    headers = {"Cache-Control": "no-store"}
    if query.redirect == "1" and not _wants_json():
        return Response(status=302, headers=headers | {"Location": url})
    link = ArtifactLink(
        url=url,
        expires_in=desk.settings.link_ttl_s,
        name=row["name"],
        media_type=row["media_type"],
        bytes=row["bytes"],
    )
    return Reply(link, headers=headers)


def _wants_json() -> bool:
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["application/octet-stream"]
