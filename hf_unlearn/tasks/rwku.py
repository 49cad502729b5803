"""The task rwku: texts about people are forgotten, and RWKU's probes about them and their neighbours measure it."""

from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset

from ..data.rwku import TRAINING, other_training_rows, training_rows
from ..errors import require_choice
from ..evaluation import rwku
from .answer_judge import DEFAULT_PURPOSE, JudgeByModel, judged_by_model
from .arguments import Parsed
from .benchmark import KeptTextArguments, at_most, benchmark_model, first_of_each, own_texts
from .task import Task

DEFAULT_RECIPE = None
# Longest answer to a probe, to a question of BBH and to an instruction.
_ANSWER_TOKENS, _REASON_TOKENS, _FLUENCY_TOKENS = 30, 256, 256


@dataclass
class Arguments(KeptTextArguments, JudgeByModel):
    """Who is to be forgotten. --evaluated_rows are of each set of probes, and of each adversarial form."""

    target: list[str] | None = field(
        default=None, metadata={"help": "Who is forgotten, each name in quotes; none: everybody in RWKU."}
    )
    source: str = field(default="jinzhuoran/RWKU", metadata={"help": "RWKU's sets: an id on the Hub, or a folder."})
    forget_corpus: str = field(
        default="train_positive_llama3",
        metadata={
            "help": "Texts about them: train_positive_llama3, train_pair_llama3 (for dpo), train_original_passage, ..."
        },
    )
    published: bool = field(default=False, metadata={"help": "Add the figures of the benchmark's own code."})
    max_question_length: int | None = field(
        default=None, metadata={"help": "Longest question in tokens; of utility sets' the beginning is cut."}
    )

    def __post_init__(self) -> None:
        require_choice("forget_corpus", self.forget_corpus, TRAINING)


def make_task(parsed: Parsed) -> Task:
    """The model, the texts about the people and those about others, and the suite of RWKU."""
    script = parsed.script
    model = benchmark_model(parsed, "the paper's are meta-llama/Meta-Llama-3-8B-Instruct and a Phi-3 mini")
    with parsed.args.main_process_first(local=True, desc="loading data"):
        sets = _texts(script)
    suite = partial(
        rwku,
        script.source,
        script.target,
        published=script.published,
        judge=judged_by_model(script, DEFAULT_PURPOSE),
        limit=script.evaluated_rows,
        answer_tokens=at_most(_ANSWER_TOKENS, script.max_new_tokens),
        reason_tokens=at_most(_REASON_TOKENS, script.max_new_tokens),
        fluency_tokens=at_most(_FLUENCY_TOKENS, script.max_new_tokens),
        max_length=script.max_question_length,
    )
    return Task(model, sets, suite, script.oracle)


def _texts(script: Arguments) -> dict[str, Dataset]:
    """The texts to forget and to keep: those that are named, or those about everybody else in the corpus, if any."""
    forget = training_rows(script.source, script.target, corpus=script.forget_corpus)
    kept = own_texts(script, "RWKU")
    if kept is None and script.target is not None:
        kept = other_training_rows(script.source, script.target, corpus=script.forget_corpus)
    if kept is not None and len(kept) == 0:
        kept = None
    return first_of_each({"forget": forget, "retain": kept}, script.limit)
