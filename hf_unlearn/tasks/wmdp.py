"""The task wmdp: texts on hazardous subjects are forgotten and others kept; WMDP's and MMLU's questions measure it."""

from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset

from ..data.wmdp import TRAINED_DOMAINS, training_sets
from ..evaluation import wmdp
from .arguments import Parsed
from .benchmark import KeptTextArguments, benchmark_model, first_of_each, own_texts
from .task import Task

DEFAULT_RECIPE = None


@dataclass
class Arguments(KeptTextArguments):
    """The texts to train on and the questions to measure by; --evaluated_rows are of each domain and subject."""

    corpora: str = field(
        default="cais/wmdp-corpora",
        metadata={"help": "Texts: an id on the Hub, or a folder (cyber-forget-corpus.jsonl, ...)."},
    )
    domains: list[str] | None = field(default=None, metadata={"help": "What to forget: bio, cyber; none: both."})
    source: str = field(default="cais/wmdp", metadata={"help": "WMDP's questions: an id on the Hub, or a folder."})
    mmlu: str = field(default="cais/mmlu", metadata={"help": "MMLU's questions: a Hub id, a folder or a file."})
    permuted: bool = field(default=False, metadata={"help": "Ask in all four cyclic orders of the options."})
    open_ended: bool = field(default=True, metadata={"help": "Ask without the options too."})
    published: bool = field(default=False, metadata={"help": "Add the figures of lm-evaluation-harness."})
    max_question_length: int | None = field(
        default=None, metadata={"help": "Longest question in tokens; the beginning of longer ones is cut."}
    )


def make_task(parsed: Parsed) -> Task:
    """The model, the texts of the domains, and the suite over their questions; there is no lab for it."""
    script = parsed.script
    model = benchmark_model(parsed, "the paper's is HuggingFaceH4/zephyr-7b-beta")
    with parsed.args.main_process_first(local=True, desc="loading data"):
        sets = _texts(script)
        suite = partial(
            wmdp,
            script.source,
            script.mmlu,
            domains=script.domains or TRAINED_DOMAINS,
            limit=script.evaluated_rows,
            permuted=script.permuted,
            open_ended=script.open_ended,
            published=script.published,
            max_new_tokens=script.max_new_tokens,
            max_length=script.max_question_length,
        )
    return Task(model, sets, suite, script.oracle)


def _texts(script: Arguments) -> dict[str, Dataset]:
    """The texts to forget and to keep."""
    domains, own = script.domains or TRAINED_DOMAINS, own_texts(script, "WMDP")
    sets: dict[str, Dataset | None] = {**training_sets(script.corpora, domains, kept=own is None)}
    return first_of_each(sets if own is None else {**sets, "retain": own}, script.limit)
