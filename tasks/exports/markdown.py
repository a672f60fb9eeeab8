"""The report as Markdown, to be read by its writer from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.analysis.book import Synthesis
from tasks.analysis.languages import NAMES
from tasks.analysis.rows import ChapterRow
from tasks.exports.charts import draw_bar, draw_line
from tasks.exports.escape import escape_markdown
from tasks.exports.guides import GUIDES
from tasks.exports.people import write_people
from tasks.exports.report import ManuscriptReport
from tasks.exports.tables import write_table

WAYS = {
    "numbers": "by its numbered headings",
    "structure": "by the headings that the document marks as such",
    "names": "by lines set apart like titles",
    "scene breaks": "at scene breaks, because there are no chapter headings",
    "chunks": "into stretches of about the same length, because nothing marks chapters",
    "whole text": "as one piece, because nothing divides it",
}
PLACES_LEFT_OUT = {
    "front": "before the story",
    "back": "after the story",
    "short": "too short to be measured as a chapter",
}
DOUBTFUL = 0.7
FEWEST_TIMES = 3
MOST_LEFT = 20
MOST_LINES = 60


def write_markdown(report: ManuscriptReport) -> bytes:
    """The whole report, UTF-8. Everything that comes from the manuscript is escaped."""
    book = report.book
    blocks = [
        *_write_head(report),
        *_write_glance(report),
        *_write_chapters(report),
        *_section("pace", "Pace", report, _chart_pace(book)),
        *_section("dialogue", "Dialogue", report, _chart_dialogue(book)),
        *_write_arc(report),
        *_section("cast", "Cast", report, write_people(book)),
        *_section("language", "Language", report, _write_language(book)),
        *_write_lines(report),
        *_write_limits(report),
    ]
    return ("\n\n".join(blocks) + "\n").encode()


def number(value: float | None, form: str = ",.0f") -> str:
    """A number in a form, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def share(value: float | None) -> str:
    """A share as percent, or a dash."""
    return "–" if value is None else f"{value:.0%}"


def title_of(row: ChapterRow) -> str:
    """A chapter's title, with its part where it has one."""
    title = escape_markdown(row.title) or f"Chapter {row.position}"
    return f"{title} · {escape_markdown(row.part)}" if row.part else title


def _write_head(report: ManuscriptReport) -> list[str]:
    by = f"by {escape_markdown(report.author)}" if report.author else ""
    return [
        f"# {escape_markdown(report.title) or 'Untitled'}",
        *([by] if by else []),
        "*A manuscript report. Everything in it was counted or computed from the text; nothing was judged or made up.*",
    ]


def _write_glance(report: ManuscriptReport) -> list[str]:
    book = report.book
    rows = [
        ("Length", f"{book.words:,} words, about {book.pages:,} pages of 250 words"),
        ("Reading time", _duration(book.minutes)),
        ("Chapters", _count_chapters(report)),
        ("Language", NAMES[book.language]),
        ("In quotation marks", share(book.dialogue_share)),
        ("Sentences", f"{book.sentences:,}, of {book.sentence_mean:.1f} words on average"),
        ("Reading ease", _ease(book)),
        ("Variety of words", f"{number(book.vocabulary.mtld)} (MTLD), {book.vocabulary.types:,} different words"),
        ("Named people", f"{len(book.cast)} in the table below" if book.cast else "–"),
    ]
    return ["## At a glance", write_table(("", ""), rows), *_write_division(report)]


def _count_chapters(report: ManuscriptReport) -> str:
    parts = len(report.division.parts)
    mean = f"{report.division.chapters:,}, of {report.book.lengths.mean:,.0f} words on average"
    return f"{mean}, in {parts} parts" if parts > 1 else mean


def _write_division(report: ManuscriptReport) -> list[str]:
    division = report.division
    text = f"The text was divided {WAYS.get(division.found_by, 'by its headings')}"
    text += f" (confidence {division.confidence:.0%})."
    if division.confidence < DOUBTFUL:
        text += " Everything said below about single chapters depends on that division: look at it first."
    return [text]


def _duration(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min, at 240 words a minute" if hours else f"{minutes} min, at 240 words a minute"


def _ease(book: Synthesis) -> str:
    if book.ease is None:
        return "–"
    grade = f", school grade {book.grade:.1f}" if book.grade is not None else ""
    return f"{book.ease:.0f} ({book.ease_formula}; higher is easier){grade}"


def _write_chapters(report: ManuscriptReport) -> list[str]:
    most = max(row.words for row in report.book.chapters)
    head = ("No.:", "Chapter", "Words:", "", "Quoted:", "Words a sentence:", "Ease:", "Pace:", "Tone:")
    rows = [
        (
            str(row.position), title_of(row), number(row.words), draw_bar(row.words, most), share(row.dialogue_share),
            number(row.sentence_mean, ".1f"), number(row.ease), number(row.pace), number(row.tone, "+.2f"),
        )
        for row in report.book.chapters
    ]  # fmt: skip
    return _section("chapters", "Chapters", report, [write_table(head, rows)])


def _section(key: str, title: str, report: ManuscriptReport, body: Sequence[str]) -> list[str]:
    """A section with its notes and its guide; nothing when there is nothing to show."""
    notes = [note.text for note in report.notes if note.section == key]
    if not body:
        return []
    listed = ["\n".join(f"- {escape_markdown(text)}" for text in notes)] if notes else []
    how, use = GUIDES[key]
    return [f"## {title}", *body, *listed, f"**How it is measured.** {how}", f"**How to use it.** {use}"]


def _chart_pace(book: Synthesis) -> list[str]:
    paces = [row.pace for row in book.chapters if row.pace is not None]
    return [_chart(draw_line(paces), "first chapter", "last chapter")] if paces else []


def _chart_dialogue(book: Synthesis) -> list[str]:
    shares = [row.dialogue_share for row in book.chapters if row.dialogue_share is not None]
    return [_chart(draw_line(shares), "first chapter", "last chapter")] if shares else []


def _chart(line: str, left: str, right: str) -> str:
    gap = max(1, len(line) - len(left) - len(right))
    return f"```text\n{line}\n{left}{' ' * gap}{right}\n```"


def _write_arc(report: ManuscriptReport) -> list[str]:
    book = report.book
    if not book.arc:
        return []
    body = [_chart(draw_line(book.arc.points), "beginning", "end")]
    if book.arc.turns:
        turns = [
            (f"{turn.percent}%", turn.kind, f"{turn.tone:+.2f}", title_of(book.chapters[turn.chapter - 1]))
            for turn in book.arc.turns
        ]
        body += ["Where the smoothed tone turns:", write_table(("At:", "Point", "Tone:", "Chapter"), turns)]
    places = [
        (
            f"{place.percent}%", title_of(book.chapters[place.chapter - 1]), place.looked_for,
            number(place.tone, "+.2f"), number(place.change, "+.2f"), number(place.pace),
        )
        for place in book.landmarks
    ]  # fmt: skip
    if places:
        head = ("At:", "Chapter", "What many story guides look for here", "Tone:", "Change:", "Pace:")
        body += ["What was measured at the places that story guides name:", write_table(head, places)]
    return _section("arc", "Tone from beginning to end", report, body)


def _write_language(book: Synthesis) -> list[str]:
    vocabulary = book.vocabulary
    body = [
        f"{vocabulary.types:,} different words, {vocabulary.once:,} of them used once. "
        f"Variety (MTLD): {number(vocabulary.mtld)}."
    ]
    habits = vocabulary.habits
    watched = [(word, n) for word, n in habits.watched.items() if n >= FEWEST_TIMES] if habits else []
    if watched:
        per = 10_000 / max(1, book.words)
        rows = [(escape_markdown(word), f"{n:,}", f"{n * per:.1f}") for word, n in watched]
        body += ["Words that editors watch, and how often they stand here:"]
        body += [write_table(("Word", "Times:", "In 10,000 words:"), rows)]
    if vocabulary.phrases:
        listed = ", ".join(f"“{escape_markdown(phrase)}” ({n})" for phrase, n in vocabulary.phrases.items())
        body += [f"Runs of four words repeated within single chapters, counted over all of them: {listed}."]
    own = [row for row in book.chapters if row.own_words][:MOST_LINES]
    if own:
        rows3 = [(str(row.position), title_of(row), escape_markdown(", ".join(row.own_words))) for row in own]
        body += ["Words that belong to one chapter:", write_table(("No.:", "Chapter", "Its own words"), rows3)]
    return body


def _write_lines(report: ManuscriptReport) -> list[str]:
    quoted = [row for row in report.book.chapters if row.opening and row.closing]
    rows = [
        (str(row.position), _quote(row.opening.text, row.opening.cut), _quote(row.closing.text, row.closing.cut))
        for row in quoted[:MOST_LINES]
        if row.opening and row.closing
    ]
    if not rows:
        return []
    rest = len(quoted) - len(rows)
    more = [f"The lines of {rest} more chapters are in report.json."] if rest else []
    return _section(
        "lines", "Opening and closing lines", report, [write_table(("No.:", "Opens", "Closes"), rows), *more]
    )


def _quote(text: str, cut: bool) -> str:
    return escape_markdown(text) + (" …" if cut else "")


def _write_limits(report: ManuscriptReport) -> list[str]:
    left_out = report.division.left_out
    lines = [f"{m.name.capitalize()} was not measured. {m.why}" for m in report.book.measures if not m.applies]
    lines += [
        f"“{escape_markdown(o.title)}”, {o.words:,} words: {PLACES_LEFT_OUT[o.kind]}." for o in left_out[:MOST_LEFT]
    ]
    if len(left_out) > MOST_LEFT:
        lines.append(
            f"{len(left_out) - MOST_LEFT} more sections of {sum(o.words for o in left_out[MOST_LEFT:]):,} words."
        )
    if report.book.first_person > 0.02:
        lines.append(
            f"{report.book.first_person:.1%} of all words are I or me. If the story is told in the first person, its "
            "narrator is in the cast only where others say the name."
        )
    lines += [escape_markdown(warning) for warning in report.warnings]
    return ["## What this report leaves out", "\n".join(f"- {line}" for line in lines)] if lines else []
