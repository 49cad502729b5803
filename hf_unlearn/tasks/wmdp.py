"""The task wmdp: texts on hazardous subjects are forgotten and others kept; WMDP's and MMLU's questions measure it."""

from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset

from ..data.benchmark_rows import checked_columns
from ..data.sources import load_rows
from ..data.wmdp import TRAINED_DOMAINS, training_sets
from ..errors import input_error
from ..evaluation import wmdp
from .arguments import Parsed, RunArguments
from .task import Task, first

DEFAULT_RECIPE = None


@dataclass
class Arguments(RunArguments):
    """The texts to train on and the questions to measure by; --evaluated_rows are of each domain and subject."""

    corpora: str = field(
        default="cais/wmdp-corpora",
        metadata={"help": "Texts: an id on the Hub, or a folder (cyber-forget-corpus.jsonl, ...)."},
    )
    domains: list[str] | None = field(default=None, metadata={"help": "What to forget: bio, cyber; none: both."})
    retain_dataset: str | None = field(
        default=None, metadata={"help": "Texts to keep in place of the retain corpora; the paper's are WikiText."}
    )
    retain_name: str | None = field(default=None, metadata={"help": "Configuration of a retain dataset on the Hub."})
    retain_split: str = field(default="train", metadata={"help": "Split of the retain dataset."})
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
    script, model = parsed.script, parsed.model.model_name_or_path
    if model is None:
        raise input_error(
            expected="--model_name_or_path",
            got="no model",
            why="the task has no model of its own",
            fix="add it: the paper's is HuggingFaceH4/zephyr-7b-beta",
        )
    if script.evaluated_half is not None:
        raise input_error(
            expected="no --evaluated_half",
            got=repr(script.evaluated_half),
            why="the task measures on questions, which are no rows of the training sets and are not chosen by",
            fix="leave it out, or choose by one domain and report on another",
        )
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
    if script.retain_dataset is None:
        sets = training_sets(script.corpora, script.domains or TRAINED_DOMAINS)
    else:
        rows = load_rows(script.retain_dataset, name=script.retain_name, split=script.retain_split)
        filled = rows.filter(lambda row: bool((row.get("text") or "").strip()))  # WikiText has empty lines
        retain = checked_columns(filled, ("text",), "retain_dataset", "WMDP")
        sets = training_sets(script.corpora, script.domains or TRAINED_DOMAINS, kept=False) | {"retain": retain}
    return {name: chosen for name, rows in sets.items() if (chosen := first(rows, script.limit)) is not None}
