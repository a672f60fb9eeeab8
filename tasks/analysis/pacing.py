"""What makes a chapter read fast or slow."""

from __future__ import annotations

import re
from collections import Counter
from statistics import fmean, median, pstdev

from tasks.analysis.habits import MOTION
from tasks.analysis.model import Pacing, SentenceLengths
from tasks.analysis.words import Prose

_BREAK = re.compile(r"^[ \t]*(?:[*#~•·⁂§]|[-–—_=]{3,})(?:[ \t*#~•·⁂§–—_=-]*)$", re.MULTILINE)


def measure_sentences(prose: Prose) -> SentenceLengths:
    """Lengths in words; zeros for a text without any."""
    lengths = [len(sentence.words) for sentence in prose.sentences] or [0]
    return SentenceLengths(
        mean=round(fmean(lengths), 2),
        median=round(median(lengths), 1),
        spread=round(pstdev(lengths), 2),
        longest=max(lengths),
    )


def measure_pacing(prose: Prose, counts: Counter[str], dialogue_share: float | None, language: str) -> Pacing:
    """The single measures; how they compare is a matter of the whole book."""
    words = max(1, len(prose.words))
    motion = sum(counts[verb] for verb in MOTION)
    return Pacing(
        sentence_mean=round(len(prose.words) / max(1, len(prose.sentences)), 2),
        paragraph_mean=round(len(prose.words) / max(1, len(prose.paragraphs)), 2),
        dialogue_share=round(dialogue_share or 0.0, 4),
        motion_per_1000=round(1000 * motion / words, 2) if language == "en" else None,
        scene_breaks=len(_BREAK.findall(prose.text)),
    )
