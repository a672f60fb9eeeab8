"""Direct uploads on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, Request, Whole, example

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_HEX = r"^[0-9a-f]{64}$"


class NewUpload(Request):
    """What is to be sent."""

    model_config = example(filename="The Lamplighter's Ledger.pdf", bytes=734_003_200, sha256=_SHA256)

    filename: str = Field(min_length=1, max_length=1000, description="Its ending must fit the content.")
    bytes: Whole = Field(ge=1, le=2**53, description="Exact size; see MAX_DIRECT_UPLOAD_BYTES.")
    sha256: str | None = Field(None, pattern=_HEX, description="Digest of the bytes, in lower case hex.")
    title: str | None = Field(None, min_length=1, max_length=500, description="Default: the file's name.")


class OpenUpload(Answer):
    """Where to send the bytes, and how. No other header is needed."""

    model_config = example(
        id="01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
        url="https://api.example.com/api/v1/uploads/WyIwMTkz",
        method="PUT",
        headers={"Content-Type": "application/octet-stream"},
        expires_at="2026-11-23T11:30:00Z",
    )

    id: UUID = Field(description="The id that the document will have.")
    url: str
    method: Literal["PUT"]
    headers: dict[str, str]
    expires_at: datetime = Field(description="Until then the bytes must have come and be confirmed.")


class Confirmation(Request):
    """That the bytes are there, and what to do with them."""

    model_config = example(pipeline="manuscript", params={})

    sha256: str | None = Field(None, pattern=_HEX, description="Digest of the bytes, if it was not announced.")
    pipeline: str | None = Field(
        None, min_length=1, max_length=63, description="Start this pipeline on the document, or keep neither."
    )
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of the pipeline.")


class Received(Answer):
    """Bytes that came in."""

    model_config = example(bytes=734_003_200)

    bytes: int
