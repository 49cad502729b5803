"""Help for the package's own arguments, read from the source of their dataclasses, whose import takes seconds."""

import argparse
import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .command import CommandParser

_PACKAGE = Path(__file__).resolve().parent.parent
# Where the arguments of `hf-unlearn train` stand: heading, file, class.
_HOLDERS = (
    ("every task", "tasks/arguments.py", "RunArguments"),
    ("tasks harmful, deletion and custom: rows", "tasks/row_sets.py", "RowSetArguments"),
    ("task harmful", "tasks/harmful.py", "Arguments"),
    ("tasks harmful, rwku and custom: a language model as judge", "tasks/answer_judge.py", "JudgeByModel"),
    ("task deletion", "tasks/deletion.py", "Arguments"),
    ("tasks rwku and wmdp: texts to keep", "tasks/benchmark.py", "KeptTextArguments"),
    ("task muse", "tasks/muse.py", "Arguments"),
    ("task rwku", "tasks/rwku.py", "Arguments"),
    ("task wmdp", "tasks/wmdp.py", "Arguments"),
    ("task custom", "tasks/custom.py", "Arguments"),
    ("tasks copyright and privacy: a fit first", "tasks/fit_first.py", "FitArguments"),
    ("task copyright", "tasks/copyright.py", "Arguments"),
    ("task privacy", "tasks/privacy.py", "Arguments"),
    ("unlearning (UnlearningConfig)", "training/config.py", "UnlearningConfig"),
)
# Those of transformers and TRL that take no value, or true and false.
_SWITCHES = ("activation_checkpointing", "bf16", "push_to_hub", "use_cpu", "use_peft")


@dataclass(frozen=True)
class Own:
    """An argument: its name, its default as Python writes it, and its help."""

    name: str
    default: str
    help: str

    @property
    def shown_default(self) -> str:
        """As help adds it; nothing for None and for expressions such as `TrainingArguments.optim`."""
        is_expression = "." in self.default and not self.default[0].isdigit()
        return "" if self.default in ("None", "") or is_expression else f" (default: {self.default})"


@functools.cache
def own_arguments(file: str, name: str) -> tuple[Own, ...]:
    """The fields of a dataclass that are written as `field(default=..., metadata={"help": ...})`.

    Read once: several commands have the same, and to parse the files is most of what it takes to make the parser.
    """
    tree = ast.parse((_PACKAGE / file).read_text(encoding="utf-8"))
    (holder,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return tuple(own for node in holder.body if isinstance(node, ast.AnnAssign) for own in _own(node))


def _own(node: ast.AnnAssign) -> Iterator[Own]:
    if not isinstance(node.value, ast.Call) or not isinstance(node.target, ast.Name):
        return
    given = {keyword.arg: keyword.value for keyword in node.value.keywords}
    help_text = ast.literal_eval(given["metadata"])["help"] if "metadata" in given else ""
    default = ast.unparse(given["default"]) if "default" in given else "None"
    yield Own(node.target.id, default.strip("'"), help_text)


def add_own_arguments(parser: CommandParser, brief: Mapping[str, str]) -> None:
    """All of them, for help and completion; their values are left to the parser that knows their types.

    Args:
        parser: of a command that takes the arguments of a task.
        brief: what the short help lists of them, by name with a line each; those of transformers and TRL too.
    """
    known = {action.dest for action in parser._actions}
    for heading, file, name in _HOLDERS:
        group = parser.add_argument_group(heading)
        for own in own_arguments(file, name):
            if own.name in known:
                continue
            known.add(own.name)
            parser.seldom.add(own.name)
            _add(group, own.name, (own.help + own.shown_default).replace("%", "%%"), own.default in ("True", "False"))
    group = parser.add_argument_group("transformers.TrainingArguments and trl.ModelConfig, a few of their arguments")
    for name, words in brief.items():
        if name not in known:
            _add(group, name, words, name in _SWITCHES)
    parser.brief |= brief


def _add(group: argparse._ArgumentGroup, name: str, words: str, is_switch: bool) -> None:
    nargs = "?" if is_switch else 1  # --fit alone is --fit true
    group.add_argument(f"--{name}", nargs=nargs, default=argparse.SUPPRESS, metavar="VALUE", help=words)
