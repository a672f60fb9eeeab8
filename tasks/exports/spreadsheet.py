"""The chapters as CSV: one row each, for a spreadsheet."""

from __future__ import annotations

import csv
import io

from tasks.analysis.rows import ChapterRow
from tasks.cells import escape_cell
from tasks.exports.escape import flatten
from tasks.exports.report import ManuscriptReport

COLUMNS = (
    "position", "number", "part", "title", "words", "begins_percent", "sentences", "paragraphs", "sentence_mean",
    "sentence_median", "sentence_spread", "sentence_longest", "dialogue_share", "reading_ease", "school_grade", "mtld",
    "tone", "pace", "motion_per_1000", "scene_breaks", "people", "own_words",
)  # fmt: skip


def write_csv(report: ManuscriptReport) -> bytes:
    """UTF-8 with a byte order mark, which spreadsheets need to read accents; lines end in CR LF (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in report.book.chapters:
        writer.writerow([escape_cell(value) for value in _values(row)])
    return out.getvalue().encode("utf-8-sig")


def _values(row: ChapterRow) -> tuple[object, ...]:
    return (
        row.position, row.number, flatten(row.part), flatten(row.title), row.words, row.begins, row.sentences,
        row.paragraphs, row.sentence_mean, row.sentence_median, row.sentence_spread, row.sentence_longest,
        row.dialogue_share, row.ease, row.grade, row.mtld, row.tone, row.pace, row.motion_per_1000, row.scene_breaks,
        flatten("; ".join(row.people)), flatten("; ".join(row.own_words)),
    )  # fmt: skip
