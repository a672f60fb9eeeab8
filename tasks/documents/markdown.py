"""Markdown: headings are read, marks are taken off, lines stay lines."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.documents.builder import one_line
from tasks.documents.model import ExtractedText, Heading
from tasks.documents.text import checked, decode, read_bytes

SCENE_BREAK = "* * *"
_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_FIELD = re.compile(r"^(title|author)\s*:\s*(.+)$", re.I | re.M)
_COMMENT = re.compile(r"<!--.{0,5000}?-->", re.S)
_ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_RULE = re.compile(r"^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)")
_QUOTE = re.compile(r"^ {0,3}(?:> ?)+")
# Spans are bounded, so that a line of opening marks without closing ones costs no quadratic time.
_INLINE = (
    (re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)"), ""),
    (re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"\[([^\]\n]+)\]\[[^\]\n]*\]"), r"\1"),
    (re.compile(r"<(https?://[^>\s]+)>"), r"\1"),
    (re.compile(r"</?[A-Za-z][^<>\n]{0,200}>"), ""),
    (re.compile(r"(?<![\\*\w])(\*{1,3})(?=[^\s*])(.{1,2000}?)(?<=[^\s\\*])\1(?!\*)"), r"\2"),
    (re.compile(r"(?<=\w)(\*{1,3})(?=[^\s*])(.{1,2000}?)(?<=[^\s\\*])\1(?!\*)"), r"\2"),
    (re.compile(r"(?<![\\_\w])(_{1,3})(?=[^\s_])(.{1,2000}?)(?<=[^\s\\_])\1(?!\w)"), r"\2"),
    (re.compile(r"~~(?=\S)(.{1,2000}?)(?<=\S)~~"), r"\1"),
    (re.compile(r"(`+)(.{1,2000}?)\1"), r"\2"),
    (re.compile(r"\\([\\`*_{}\[\]()#+\-.!>~|\"'])"), r"\1"),
)


def extract_markdown(path: Path) -> ExtractedText:
    """Read a Markdown file. Raises `not_text`, `no_text`."""
    source, warnings = decode(read_bytes(path))
    source, fields = _split_front_matter(checked(source))
    lines, headings = _read_lines(_COMMENT.sub("", source).split("\n"))
    return ExtractedText(
        text=checked("\n".join(lines)),
        headings=headings,
        engine="markdown",
        title=fields.get("title"),
        author=fields.get("author"),
        warnings=warnings,
    )


def _split_front_matter(source: str) -> tuple[str, dict[str, str | None]]:
    match = _FRONT_MATTER.match(source)
    if match is None or ":" not in match[1]:
        return source, {}
    fields = {name.lower(): one_line(value.strip().strip("\"'")) for name, value in _FIELD.findall(match[1])}
    return source[match.end() :], fields


def _read_lines(source: list[str]) -> tuple[list[str], list[Heading]]:
    """Lines without marks, and the headings with the offsets they get in `"\\n".join(lines)`."""
    lines: list[str] = []
    levels: dict[int, int] = {}
    fenced = False
    for raw in source:
        if _FENCE.match(raw):
            fenced = not fenced
        elif fenced:
            lines.append(raw)
        elif match := _ATX.match(raw):
            levels[len(lines)] = len(match[1])
            lines.append(_inline(match[2] or ""))
        elif (match := _SETEXT.match(raw)) and _can_be_title(lines, len(lines) - 1, levels):
            levels[len(lines) - 1] = 1 if match[1][0] == "=" else 2
        else:
            lines.append(SCENE_BREAK if _RULE.match(raw) else _inline(_QUOTE.sub("", raw)))
    return lines, _locate(lines, levels)


def _can_be_title(lines: list[str], at: int, levels: dict[int, int]) -> bool:
    """Whether a line of dashes underlines the line before: that must be one line of text, not a paragraph's last."""
    if at < 0 or not lines[at].strip() or at in levels or lines[at] == SCENE_BREAK:
        return False
    return at == 0 or not lines[at - 1].strip()


def _locate(lines: list[str], levels: dict[int, int]) -> list[Heading]:
    headings = []
    offset = 0
    for number, line in enumerate(lines):
        if number in levels and line.strip():
            indent = len(line) - len(line.lstrip())
            headings.append(Heading(offset=offset + indent, level=levels[number], text=line.strip()))
        offset += len(line) + 1
    return headings


def _inline(line: str) -> str:
    for pattern, replacement in _INLINE:
        line = pattern.sub(replacement, line)
    return line
