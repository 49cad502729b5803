"""The task muse: news articles or books are forgotten, whole or in parts, and measured by MUSE before and after."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import Dataset

from ..data.muse import PARTS, SET_OF_HOLDOUT, load_muse, sets_of, training_sets
from ..errors import require_choice
from ..evaluation import EvaluationResult, Suite, muse
from .arguments import Parsed, RunArguments
from .benchmark import at_most, benchmark_model, first_of_each
from .task import Task

DEFAULT_RECIPE = None
# Longest continuation of an excerpt and longest answer to a question, as in the paper.
_VERBMEM_TOKENS, _KNOWMEM_TOKENS = 128, 32


@dataclass
class Arguments(RunArguments):
    """What of MUSE is forgotten. --evaluated_rows are of each set of excerpts and questions."""

    corpus: str = field(default="news", metadata={"help": "MUSE's corpus: news or books."})
    part: str = field(
        default="forget",
        metadata={
            "help": "What is forgotten: forget; scal_1 to scal_4, growing sets; sust_1 to sust_4, requests one after "
            "the other (--continue_from the run of the one before)."
        },
    )
    source: str | None = field(
        default=None, metadata={"help": "MUSE's sets: an id on the Hub, or a folder; none: the corpus on the Hub."}
    )
    passage_characters: int = field(
        default=2000,
        metadata={"help": "Longer texts are cut into passages of about so many characters, and none of them is lost."},
    )
    published: bool = field(default=False, metadata={"help": "Add the figures of the benchmark's own code."})

    def __post_init__(self) -> None:
        require_choice("part", self.part, PARTS)


def make_task(parsed: Parsed) -> Task:
    """The model, the texts of the part, and MUSE's suite; the excerpts that no model has seen are the unseen rows."""
    script, args = parsed.script, parsed.args
    model = benchmark_model(parsed, "the paper's are muse-bench/MUSE-News_target and muse-bench/MUSE-Books_target")
    with args.main_process_first(local=True, desc="loading data"):
        texts = training_sets(
            script.source, script.corpus, part=script.part, passage_characters=script.passage_characters
        )
        data = load_muse(script.source, script.corpus, part=script.part)
    suite = partial(
        _suite,
        sets_of(data, script.part),
        corpus=script.corpus,
        part=script.part,
        published=script.published,
        limit=script.evaluated_rows,
        verbmem_tokens=at_most(_VERBMEM_TOKENS, script.max_new_tokens),
        knowmem_tokens=at_most(_KNOWMEM_TOKENS, script.max_new_tokens),
    )
    sets = first_of_each({**texts, "holdout": data.holdout}, script.limit)
    return Task(model, sets, suite, script.oracle, notes=_notes(script))


def _suite(
    sets: Mapping[str, Dataset],
    *,
    holdout: Dataset | None = None,
    before: EvaluationResult | None = None,
    oracle: EvaluationResult | None = None,
    **options: Any,
) -> Suite:
    """MUSE's suite with the unseen excerpts that the run was not fitted to."""
    if holdout is not None:
        sets = {**sets, SET_OF_HOLDOUT: holdout}
    return muse(sets, before=before, oracle=oracle, **options)


def _notes(script: Arguments) -> list[str]:
    """What a reader of a later request must know where no earlier one was carried out."""
    kind, _, number = script.part.partition("_")
    if kind != "sust" or number == "1" or script.continue_from is not None:
        return []
    return [
        f"{script.part} was asked of a model for which no earlier run is named: a sequence has --continue_from RUN."
    ]
