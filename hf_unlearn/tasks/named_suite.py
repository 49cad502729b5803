"""Measures a model with a suite by its name: no run, no recipe, no task. The suite's own arguments are the flags."""

import inspect
import json
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..errors import input_error, nearest, require_choice
from ..evaluation import SUITES, EvaluationResult, evaluate
from ..model.loading import load_tokenizer
from ..training.launch.verify import require_several
from ..training.model_setup import move_unless_quantized
from .answer_judge import DEFAULT_PURPOSE, JUDGE_ARGUMENTS, JudgeByModel, judged_by_model
from .saved_run import load_answering
from .task import require_model


@dataclass(frozen=True)
class NamedEvaluation:
    """What is measured, and how; the suite's own arguments stand beside.

    Attributes:
        model: folder or Hub id of a model or an adapter.
        tokenizer: where the tokenizer is; None for beside the model.
        model_revision: of a model on the Hub.
        dtype: that the weights are loaded in.
        fluency_model: folder or Hub id of a model that tells gibberish from sense: that before unlearning.
        output_dir: folder for `evaluation_NAME.json`; None writes nothing.
        partial_dir: folder for unfinished findings, from which a killed evaluation goes on.
        batch_size: rows of a batch.
        seed: of resamples and drawn answers.
        use_cpu: whether to leave the GPU alone.
    """

    model: str | None = None
    tokenizer: str | None = None
    model_revision: str | None = None
    dtype: str = "float32"
    fluency_model: str | None = None
    output_dir: str | None = None
    partial_dir: str | None = None
    batch_size: int = 32
    seed: int = 0
    use_cpu: bool = False

    def __post_init__(self) -> None:
        if self.model is None:
            raise input_error(
                expected="--model with --suite",
                got="no model",
                why="there is nothing to measure",
                fix="add --model with a folder or the id of a model on the Hub",
            )
        for given in (self.model, self.fluency_model):
            require_model(given)

    def __call__(self, suite: Any, name: str) -> EvaluationResult:
        """Measure, and keep the result where a folder is named."""
        assert self.model is not None
        require_several()
        accelerator = Accelerator(cpu=self.use_cpu)
        options = {"dtype": self.dtype, "revision": self.model_revision}
        models = [
            None if source is None else move_unless_quantized(load_answering(source, loaded), accelerator.device)
            for source, loaded in ((self.model, options), (self.fluency_model, {"dtype": self.dtype}))
        ]
        result = evaluate(
            models[0],
            load_tokenizer(self.tokenizer or self.model, None if self.tokenizer else self.model_revision),
            suite,
            batch_size=self.batch_size,
            accelerator=accelerator,
            fluency_model=models[1],
            seed=self.seed,
            partial=None if self.partial_dir is None else Path(self.partial_dir) / name,
        )
        if self.output_dir is not None and accelerator.is_main_process:
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
            result.save(Path(self.output_dir) / f"evaluation_{name}.json")
        return result


def parse_named(suite: str, words: Sequence[str]) -> tuple[NamedEvaluation, Any]:
    """What the words of a command line ask for: the evaluation, and the suite with its rows loaded.

    Args:
        suite: its name.
        words: flags with their values. A value is JSON where it reads as JSON and its argument is no text.

    Raises:
        ValueError: an unknown suite or flag, one that is missing, or what the suite refuses.
    """
    require_choice("--suite", suite, SUITES)
    maker = SUITES[suite]
    known = arguments_of(maker)
    own = {field.name: field.type for field in fields(NamedEvaluation)}
    given: dict[str, Any] = {}
    for name, values in _flags(words):
        if name == "plugins":  # loaded before
            continue
        if name not in own and name not in known and not ("judge" in known and name in JUDGE_ARGUMENTS):
            raise input_error(
                expected=f"flags of --suite {suite}",
                got=f"--{name}",
                why="it would have no effect",
                fix=nearest(name, [*known, *own]),
            )
        given[name] = _value(values, str(own.get(name, known.get(name))))
    chosen = {name: value for name, value in given.items() if name in own}
    arguments = {name: value for name, value in given.items() if name not in own}
    if "judge" in known:
        judge = judged_by_model(
            JudgeByModel(**{name: arguments.pop(name) for name in JUDGE_ARGUMENTS if name in arguments}),
            purpose=DEFAULT_PURPOSE,
        )
        arguments |= {} if judge is None else {"judge": judge}
    evaluation = NamedEvaluation(**chosen)
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        raise input_error(
            expected=f"the arguments that the suite {suite} needs",
            got=f"others ({error})",
            why="it has nothing to measure without them",
            fix=f"its arguments are {', '.join(f'--{name}' for name in known)}",
        ) from None
    return evaluation, maker(**arguments)


def arguments_of(maker: Callable[..., Any]) -> dict[str, Any]:
    """A suite's arguments by name, each with its annotation, those of `Unpack[RowArguments]` too."""
    known: dict[str, Any] = {}
    for name, parameter in inspect.signature(maker).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for rows in typing.get_args(parameter.annotation):
                known |= inspect.get_annotations(rows)
        else:
            known[name] = parameter.annotation
    return known


def _flags(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Flags with the words behind them, one a flag."""
    name, values = "", list[str]()
    for word in words:
        if word.startswith("--"):
            if name:
                yield name, values
            name, is_whole, value = word.removeprefix("--").partition("=")
            name, values = name.replace("-", "_"), [value] if is_whole else []
        elif not name:
            raise input_error(
                expected="flags behind --suite",
                got=f"{word!r} before any",
                why="a run's folder brings a suite of its own",
                fix=f"leave --suite out to evaluate the run in {word!r}, or pass --model {word!r}",
            )
        else:
            values.append(word)
    if name:
        yield name, values


def _value(words: list[str], annotation: str) -> Any:
    """What the words behind a flag stand for: true for none, a list for several or where one is wanted."""
    values = [_read(word, annotation) for word in words]
    if len(values) == 1 and ("Sequence" not in annotation or isinstance(values[0], list) or values[0] is None):
        return values[0]
    return values if values else True


def _read(word: str, annotation: str) -> Any:
    try:
        value = json.loads(word)
    except json.JSONDecodeError:
        return word
    is_text = "str" in annotation and "int" not in annotation
    return word if is_text and not isinstance(value, list | dict | None) else value
