"""`Suite`: sets of rows, what the model is asked about each, and the metrics that are made of the answers."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data.formats import detect_format
from ..data.pairing import is_stream
from ..data.prepare import RowOptions
from ..errors import input_error, nearest
from ..metrics import METRIC_DESCRIPTIONS, MetricDescription, MetricResult
from ..plugins import suite_source
from ..results.evaluation_result import PACKAGED_PAIRS, EvaluationResult, load_result
from .evidence import Evidence


@dataclass(frozen=True)
class SuiteOutput:
    """What a suite makes of its evidence.

    Attributes:
        metrics: by name.
        row_scores: numbers of single rows (truth ratios, NLL per token) that another model is compared with.
        warnings: what a reader of the metrics must know.
        run: how it was measured, for the result's `run`: the judge's model, version and prompt, where rows went.
    """

    metrics: dict[str, MetricResult]
    row_scores: dict[str, list[float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """What a model is measured on, and how.

    Attributes:
        name: of the suite.
        sets: rows by set name, in any accepted format (prompt/completion, messages, text, token ids).
        measure: metrics from what the one pass found.
        answered: sets whose prompts the model answers; every set is scored.
        fluent: answered sets whose answers are scored under the fluency model, where there is one.
        gradient_norms: sets whose rows' gradients are measured, each at the price of a backward pass.
        vocabulary_statistics: also take mean and deviation of log p over the vocabulary at every answer token.
        option_tokens: of a tokenizer the tokens whose log p is taken too at every answer token, as letters of options:
            one row then does for all of them. None for none.
        max_new_tokens: longest generated answer; None for the longest expected one, 256 tokens at most.
        answer_lengths: longest generated answer of sets that have one of their own.
        token_sets: makes sets of token rows of a tokenizer, where a benchmark says how its prompts become tokens; they
            come to `sets` when a model is measured. None for none.
        max_length: longest row in tokens, the rest cut; None for no limit.
        template: of prompt/completion strings, as in UnlearningConfig.
        chat_template_kwargs: variables for the chat template, as in UnlearningConfig.
        headline: metrics that a table shows, in order; () for all.
        forget_metric: metric of what was forgotten, lower is more: the verdict is about it. "" for no verdict.
        utility_metric: metric of what was kept, higher is more.
        descriptions: of metrics that neither this package nor a plugin describes.
        before: result of this suite on the model before unlearning.
        oracle: result of this suite on the model retrained without the forget rows.
        settings: what else makes two results comparable, for the record.
    """

    name: str
    sets: Mapping[str, Any]
    measure: Callable[[Evidence], SuiteOutput]
    answered: tuple[str, ...] = ()
    fluent: tuple[str, ...] = ()
    gradient_norms: tuple[str, ...] = ()
    vocabulary_statistics: bool = False
    option_tokens: Callable[[PreTrainedTokenizerBase], Sequence[int]] | None = None
    max_new_tokens: int | None = None
    answer_lengths: Mapping[str, int] = field(default_factory=dict)
    token_sets: Callable[[PreTrainedTokenizerBase], Mapping[str, Any]] | None = None
    max_length: int | None = None
    template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    headline: tuple[str, ...] = ()
    forget_metric: str = ""
    utility_metric: str = ""
    descriptions: tuple[MetricDescription, ...] = ()
    before: EvaluationResult | None = None
    oracle: EvaluationResult | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._require_pair()
        longest = self.max_new_tokens
        if longest is None:
            return
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
            raise input_error(
                expected="max_new_tokens to be a whole number from 1 on",
                got=repr(longest),
                why="it is the longest answer that the model may give",
                fix="pass max_new_tokens=64",
            )

    def with_tokenizer(self, tokenizer: Any) -> "Suite":
        """The suite with the sets that it makes of a tokenizer; as it is where it makes none, or this is none."""
        if self.token_sets is None or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return self
        return replace(self, sets={**self.sets, **self.token_sets(tokenizer)}, token_sets=None)

    def row_options(self, tokenizer: PreTrainedTokenizerBase | None) -> RowOptions:
        """How the suite's rows become tokens."""
        return RowOptions(
            tokenizer, self.max_length, self.template, None, chat_template_kwargs=self.chat_template_kwargs
        )

    def _require_pair(self) -> None:
        """Raise for half a pair, and for a metric that is described as better the other way."""
        if bool(self.forget_metric) != bool(self.utility_metric):
            raise input_error(
                expected=f"forget_metric and utility_metric of the suite {self.name}, or neither",
                got=f"forget_metric={self.forget_metric!r}, utility_metric={self.utility_metric!r}",
                why="the verdict weighs what was forgotten against what was kept",
                fix="name the other metric too, or leave both out: there is no verdict then",
            )
        described = self.carried_descriptions((self.forget_metric, self.utility_metric))
        known = METRIC_DESCRIPTIONS.packaged | described
        for argument, name, wanted in (
            ("forget_metric", self.forget_metric, False),
            ("utility_metric", self.utility_metric, True),
        ):
            if name in known and known[name].greater_is_better is (not wanted):
                raise input_error(
                    expected=f"{argument} of the suite {self.name}, of which {'more' if wanted else 'less'} is wanted",
                    got=f"{name!r}, described with greater_is_better={not wanted}",
                    why="the verdict, the bars and the plot of forgetting against utility read it so",
                    fix="name another metric, for example the share that is left instead of the share that has gone",
                )

    @property
    def package(self) -> str:
        """The package of the plugin that the suite is of, with its version; "" for this package's and a script's."""
        return "" if self.name in PACKAGED_PAIRS else str(suite_source(self.name) or "")

    def carried_descriptions(self, metrics: Iterable[str]) -> dict[str, MetricDescription]:
        """The descriptions of those metrics that are not this package's own, for a result to be read without them."""
        own = {description.name: description for description in self.descriptions}
        described = {name: own.get(name) or METRIC_DESCRIPTIONS.get(name) for name in metrics}
        packaged = METRIC_DESCRIPTIONS.packaged
        return {name: known for name, known in described.items() if known is not None and name not in packaged}


def present(sets: Mapping[str, Any], needed: tuple[str, ...], suite: str) -> dict[str, Any]:
    """The sets that were given, checked: all that are needed, each with a length and rows of a known format.

    Raises:
        ValueError: a needed set is missing, or one is a stream, empty or of unknown columns.
    """
    given = {name: rows for name, rows in sets.items() if rows is not None}
    missing = [name for name in needed if name not in given]
    if missing:
        raise input_error(
            expected=f"the {suite} suite with the sets {', '.join(needed)}",
            got=f"no {missing[0]} set",
            why="its metrics compare these sets with each other",
            fix=f"pass {missing[0]}=rows to the suite",
        )
    for name, rows in given.items():
        if isinstance(rows, str | os.PathLike):
            raise input_error(
                expected=f"the {name} rows themselves",
                got="a path or a name",
                why="a suite loads nothing",
                fix="pass hf_unlearn.data.sources.load_rows(path)",
            )
        if isinstance(rows, Mapping):
            raise input_error(
                expected=f"the {name} set of the {suite} suite as rows",
                got=f"a {type(rows).__name__}, which holds sets",
                why="one set is measured under this name",
                fix=f"pass one of its splits, e.g. {name}=dataset['train']",
            )
        if is_stream(rows) or len(rows) == 0:
            raise input_error(
                expected=f"the {name} set of the {suite} suite to have rows and a length",
                got="a stream" if is_stream(rows) else "no rows",
                why="every row is scored once, longest first",
                fix="take the rows that are to be measured, e.g. datasets.Dataset.from_list(list(stream.take(500)))",
            )
        if not isinstance(rows[0], Mapping):
            raise input_error(
                expected=f"rows of the {name} set as mappings of columns",
                got=f"rows of type {type(rows[0]).__name__}",
                why="prompt and answer must be told apart",
                fix='pass rows such as {"prompt": ..., "completion": ...}',
            )
        detect_format(list(rows[0]), "eval")
    return given


def baseline(
    given: EvaluationResult | str | os.PathLike[str] | None, suite: str, which: str
) -> EvaluationResult | None:
    """A result to compare with, loaded where it is a path.

    Raises:
        ValueError: it is of another suite.
    """
    if given is None:
        return None
    if not isinstance(given, EvaluationResult | str | os.PathLike):
        raise input_error(
            expected=f"{which} to be an EvaluationResult, or the file that one was saved to",
            got=f"a {type(given).__name__}",
            why="a model has to be measured with the suite before another can be compared with it",
            fix=f"pass {which}=evaluate(model, tokenizer, suite)",
        )
    result = given if isinstance(given, EvaluationResult) else load_result(given)
    if result.suite != suite:
        raise input_error(
            expected=f"{which} to be a result of the {suite} suite",
            got=f"one of the {result.suite} suite",
            why="its numbers are of other rows and metrics",
            fix=f"evaluate the model that {which} stands for with this suite first",
        )
    return result


def chosen(names: Sequence[str], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Names that a user picked out of the known ones."""
    if isinstance(names, str):
        names = [names]
    for name in names:
        if name not in known:
            raise input_error(
                expected=f"{what} among {', '.join(known)}",
                got=repr(name),
                why="nothing would be measured under another name",
                fix=nearest(str(name), known),
            )
    return tuple(names)
