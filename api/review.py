"""Review: the gates that wait for a person, and the three ways to decide."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from flask import g

from api.codes import refuse
from api.contract import Access, Room
from api.house import house
from api.models.reviews import Approval, Assignment, Reprocessing, ReviewDetail, Reviews, ReviewsPage, Verdict
from api.paging import cut, read_cursor
from api.people import Member
from api.reading import read, read_one
from api.rows import show_review, show_review_detail
from tasks import ledger

review = Room("review", "Gates of jobs that wait for a person. Each is decided once, and who decided what is kept.")

_MOST_ARTIFACTS = 20


@review.call(
    "GET",
    "/review",
    "List what waits for a person",
    access=Access.READ,
    query=ReviewsPage,
    gives=Reviews,
    errors=("cursor_invalid",),
)
def list_reviews(member: Member, query: ReviewsPage) -> Reviews:
    """The inbox: open reviews, those that wait longest first. With `status`, those that were decided, newest first."""
    wanted = query.assigned_to
    rows = read(
        house(),
        member.caller,
        "api_reviews",
        tenant_id=member.tenant_id,
        status=query.status,
        pipeline=query.pipeline,
        document_id=query.document_id,
        assigned_to=member.user_id if wanted == "me" else wanted if isinstance(wanted, UUID) else None,
        unassigned=wanted == "none",
        last=read_cursor(query.cursor),
        most=query.limit + 1,
        most_artifacts=_MOST_ARTIFACTS,
    )
    rows, cursor = cut(rows, query.limit)
    return Reviews(reviews=[show_review(row) for row in rows], next_cursor=cursor)


@review.call(
    "GET",
    "/review/<uuid:review_id>",
    "Look at a review",
    access=Access.READ,
    gives=ReviewDetail,
    errors=("review_not_found",),
)
def look_at_review(member: Member, review_id: UUID) -> ReviewDetail:
    """One review, with the document's fields as they stand, what was corrected, and the steps to run again from."""
    asked = {"review_id": review_id, "tenant_id": member.tenant_id, "most_artifacts": _MOST_ARTIFACTS}
    row = read_one(house(), member.caller, "api_review", **asked)
    if row is None:
        raise refuse("review_not_found", "There is no such review.")
    g.job_id = row["job_id"]
    return show_review_detail(row)


@review.call(
    "POST",
    "/review/<uuid:review_id>/assign",
    "Assign",
    access=Access.REVIEW,
    body=Assignment,
    gives=ReviewDetail,
    errors=("review_not_found", "already_decided", "assignee_cannot_decide"),
)
def assign(member: Member, review_id: UUID, body: Assignment) -> ReviewDetail:
    """Says who is expected to decide, to everybody who looks at the inbox. Whoever may decide still may: nothing waits
    for somebody who is ill. A gate that opens again stays assigned.
    """
    with house().pool.connection() as connection:
        ledger.assign_review(connection, review_id, member.tenant_id, member.user_id, body.user_id)
    return look_at_review(member, review_id)


@review.call(
    "POST",
    "/review/<uuid:review_id>/approve",
    "Approve",
    access=Access.REVIEW,
    body=Approval,
    gives=ReviewDetail,
    errors=("review_not_found", "already_decided", "document_changed", "nothing_to_edit", "edits_too_large"),
)
def approve(member: Member, review_id: UUID, body: Approval) -> ReviewDetail:
    """The job goes on, and the steps after the gate are told what was said and what was corrected. When somebody was
    faster, `already_decided` says who, what and when; so does a second try of your own.

    With `seen`, the approval is refused with `document_changed` if the document is not what the reviewer saw.
    """
    edits, seen = body.edits.model_dump(exclude_none=True), body.seen.model_dump(exclude_unset=True)
    return _decide(member, review_id, "approved", body.comment, edits=edits, seen=seen)


@review.call(
    "POST",
    "/review/<uuid:review_id>/reject",
    "Reject",
    access=Access.REVIEW,
    body=Verdict,
    gives=ReviewDetail,
    errors=("review_not_found", "already_decided"),
)
def reject(member: Member, review_id: UUID, body: Verdict) -> ReviewDetail:
    """The job fails with the code `rejected` and the comment. Retrying it opens the gate again."""
    return _decide(member, review_id, "rejected", body.comment)


@review.call(
    "POST",
    "/review/<uuid:review_id>/reprocess",
    "Reprocess",
    access=Access.REVIEW,
    body=Reprocessing,
    gives=ReviewDetail,
    errors=("review_not_found", "already_decided", "unknown_step", "step_not_reached"),
)
def reprocess(member: Member, review_id: UUID, body: Reprocessing) -> ReviewDetail:
    """The job runs again from a step, which is one of the review's `reprocess_from`. What that step and those after it
    made is gone; results of earlier runs are not used again. The gate opens anew, as a new review.
    """
    return _decide(member, review_id, "reprocessed", body.comment, from_step=body.from_step)


def _decide(
    member: Member,
    review_id: UUID,
    decision: Literal["approved", "rejected", "reprocessed"],
    comment: str,
    **more: Any,
) -> ReviewDetail:
    with house().pool.connection() as connection:
        ledger.decide(connection, review_id, member.tenant_id, member.user_id, decision, comment, **more)
    return look_at_review(member, review_id)
