"""What all models share, and the envelope every error comes in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# An id, 16 bytes, in base64url without the padding; behind a relevance, 4 bytes, where a list is ordered by that.
_BY_ID = "[A-Za-z0-9_-]{21}[AQgw]"
_BY_RELEVANCE = "[A-Za-z0-9_-]{26}[AEIMQUYcgkosw048]"


def _as_whole(value: Any) -> Any:
    """JSON knows no integers: 7.0 is 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


AsWhole = BeforeValidator(_as_whole)
Whole = Annotated[int, AsWhole]


class Answer(BaseModel):
    """Something we send."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Request(BaseModel):
    """Something we are sent: fields we do not know are refused, so that a slip of the pen is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def cursor_field(*, ranked: bool = False) -> Any:
    """The cursor of a list. What a cursor looks like is told, and what is none is refused with a code of its own."""
    return Field(
        None,
        max_length=64,
        description="`next_cursor` of the page before.",
        json_schema_extra={"pattern": f"^({_BY_ID}|{_BY_RELEVANCE})$" if ranked else f"^{_BY_ID}$"},
    )


class Page(Request):
    """Which page of a list."""

    limit: int = Field(50, ge=1, le=200, description="Most rows of this page.")
    cursor: str | None = cursor_field()


class ErrorBody(Answer):
    """What went wrong."""

    code: str = Field(description="Stable; made for programs.")
    message: str = Field(description="A sentence for the person in front of the screen.")
    details: dict[str, Any] = Field(description="Facts that go with the code; may be empty.")


class Error(Answer):
    """Every error, whatever its cause, comes in this envelope. `X-Request-Id` in the headers finds it in our log."""

    error: ErrorBody


def example(**values: Any) -> ConfigDict:
    """The model's settings with an example for the documents."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def example_of(model: type[BaseModel]) -> dict[str, Any]:
    """The example a model has."""
    extra: Any = model.model_config["json_schema_extra"]
    return dict(extra["examples"][0])
