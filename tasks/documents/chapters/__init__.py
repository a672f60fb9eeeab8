"""Where the chapters of a text begin and end."""

from __future__ import annotations

from tasks.documents.chapters.finder import find_chapters
from tasks.documents.chapters.model import Section

__all__ = ["Section", "find_chapters"]
