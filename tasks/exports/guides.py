"""How each section of the report was measured, and how a writer can use it."""

from __future__ import annotations

# For each section: how it is measured, how to use it.
GUIDES = {
    "chapters": (
        "Words are counted as runs of letters; a hyphenated word is one. A bar shows each chapter's length beside "
        "the longest.",
        "Length is a promise of effort. Look at the chapters far outside the usual range and ask whether they "
        "hold two chapters, or half of one. A deliberate exception is a tool; an unnoticed one is not.",
    ),
    "pace": (
        "Pace combines four measures, each against this book's own average and weighed alike: shorter sentences, "
        "shorter paragraphs, more dialogue, and more verbs of movement. 50 is the average of this book and 10 is "
        "one standard deviation, so two books cannot be compared by it.",
        "Look for long runs on one side of 50 rather than for single chapters. A fast surface can hold a slow "
        "scene: read the chapter before changing it.",
    ),
    "dialogue": (
        "The share of words inside the quotation marks this text uses. Letters, thoughts and titles in quotation "
        "marks count as well; speech without marks does not.",
        "Chapters at either end of the range are worth a second look: pages of talk may lack ground under the "
        "feet, pages without any may lack people.",
    ),
    "arc": (
        "Each sentence is scored from -1 to 1 by a fixed lexicon of English words (VADER), averaged over a tenth "
        "of a chapter and smoothed over twelve percent of the book. It reads words, not meaning: irony, menace in "
        "mild words and comfort in harsh ones pass unseen.",
        "Take the curve as a prompt for attention, never as a verdict. Where it turns, check that the story "
        "turns; where your story turns and the curve does not, check that the reader is told in the words. The "
        "places in the second table are where many story guides look for certain events. The report does not know "
        "which events your story has.",
    ),
    "cast": (
        "Names are found by their capitals and by the verbs beside them, and merged only where no one else can be "
        "meant. Pronouns are not counted, nor is a narrator who says I. A place that behaves like a person may "
        "slip in, and two nicknames of one person may stand apart.",
        "Look for people who vanish for long, who arrive late, or who are mentioned often and seldom speak. "
        "People who share no chapter cannot share a scene.",
    ),
    "language": (
        "Reading ease and school grade come from the length of sentences and the syllables of words. Variety "
        "(MTLD) is the mean number of words before a text has used up its new ones; most novels lie between 70 "
        "and 110.",
        "Use the range, not the mean: a chapter far from the others has another voice, on purpose or not. The "
        "watched words are not faults. They are the ones that most often can go without loss, with how often you "
        "use them.",
    ),
    "lines": (
        "The first and last sentence of each chapter, word for word.",
        "Read the column down. Do chapters open on weather, waking, or a name each time? Do they close on a "
        "question, a door, or a rest?",
    ),
}
