"""Words that editors of English fiction watch, counted."""

from __future__ import annotations

from collections import Counter

from tasks.analysis.model import Habits
from tasks.analysis.words import word_set

FILTERS = word_set("felt saw heard noticed realized realised watched wondered seemed thought knew decided")
HEDGES = word_set("very really quite rather just almost suddenly somehow perhaps maybe actually simply somewhat")
SAID = frozenset(["said", "says", "say"])
TAGS = word_set(
    "asked replied answered cried exclaimed whispered murmured muttered shouted remarked observed returned added "
    "continued declared demanded inquired enquired began called sighed laughed snapped growled"
)
MOTION = word_set(
    "ran run rushed leaped leapt jumped sprang fell dropped threw flung pulled pushed dragged "
    "struck hit kicked grabbed "
    "seized caught turned climbed raced charged dashed burst broke crashed slammed swung tore shot fired fought chased "
    "fled escaped hurried plunged dived dove rolled tumbled stumbled staggered galloped drove rode snatched "
    "stabbed cut smashed hurled lunged ducked dodged crawled scrambled slipped sped stormed swept thrust jerked"
)
_NOT_ADVERBS = word_set(
    "only family early daily holy ugly lonely lovely silly friendly july reply supply apply rely fly likely belly "
    "italy jolly sally bully ally jelly lily polly billy molly kelly lively deadly elderly "
    "melancholy assembly butterfly "
    "curly costly cowardly ghostly heavenly homely kindly orderly hilly chilly oily woolly weekly monthly yearly imply "
    "multiply comply folly rally tally gully barely hardly"
)


def count_habits(counts: Counter[str]) -> Habits:
    """Counts over lower-case words. `watched` holds each adverb, filter and hedge that occurs."""
    adverbs = Counter({word: n for word, n in counts.items() if is_adverb(word)})
    filters = Counter({word: counts[word] for word in FILTERS if counts[word]})
    hedges = Counter({word: counts[word] for word in HEDGES if counts[word]})
    return Habits(
        adverbs=adverbs.total(),
        filters=filters.total(),
        hedges=hedges.total(),
        said=sum(counts[word] for word in SAID),
        other_tags=sum(counts[word] for word in TAGS),
        watched=dict((adverbs + filters + hedges).most_common(60)),
    )


def is_adverb(word: str) -> bool:
    """Whether a lower-case word ends like an adverb of manner and is not known for something else."""
    return len(word) > 4 and word.endswith("ly") and word not in _NOT_ADVERBS
