"""The argument `phases` of a run: read, and checked before anything is loaded."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import parse_flag_from_env

from ...edits import EDITS, Edit
from ...errors import input_error, require_choice
from ...results.phase_record import EDIT, KINDS, SUPPRESS, TRAIN
from ...suppression import SUPPRESSIONS, Suppression
from ...training.config import UnlearningConfig
from ...training.method_specs import components_of, method_to_dict, parse_text
from ..arguments import Parsed
from ..command_words import kept_words

FOLDER = "phases"  # in the run's
# Of the run as a whole: a phase has no say in them.
_OF_THE_RUN = (
    *("task", "phases", "output_dir", "resume_from_checkpoint", "attack", "measure", "oracle", "limit", "seed"),
    *(
        "model_name_or_path",
        "model_revision",
        "continue_from",
        "forget_dataset",
        "retain_dataset",
        "holdout_dataset",
        "checkpoint",
    ),
    *("push_to_hub", "show_rows", "show_prompts", "partial_dir", "template", "max_length", "use_cpu"),
)
# Of the command that started the run.
_OF_THE_COMMAND = ("phases", "output_dir", "push_to_hub", "resume_from_checkpoint", "attack")
# Arguments that say what is trained and how, of which the trainer that stands for the whole run has its own.
_OF_LOSSES = (
    *("forget_loss", "forget_weight", "forget_nll_bound", "forget_bound_sides", "levels", "recalibrate_steps"),
    *("retain_loss", "retain_weight", "retain_ratio", "anchor_loss", "anchor_weight", "anchor_ratio"),
    *("weighting", "step_wrappers", "reference", "reference_load_in_8bit", "reference_top_k"),
    *("padding_free", "auto_padding_free", "max_tokens_per_batch"),
    *("stop_forget_nll", "stop_at_level", "stop_retain_nll_increase", "resume_from_checkpoint"),
)


@dataclass(frozen=True)
class Phase:
    """A phase of a run.

    Attributes:
        number: its place, from 1.
        kind: "edit", "train" or "suppress".
        component: the edit or the suppression; None of a training.
        given: of a training, arguments that differ from the run's.
        parsed: of a training, all of its arguments; None else.
    """

    number: int
    kind: str
    component: Any = None
    given: Mapping[str, Any] | None = None
    parsed: Parsed | None = None

    @property
    def folder(self) -> str:
        """Name of its folder in the run's: "phases/2-train"."""
        return f"{FOLDER}/{self.number}-{self.name}"

    @property
    def name(self) -> str:
        """Of the edit or the suppression; "train" of a training."""
        return self.kind if self.component is None else str(self.component.name)

    def spec(self) -> dict[str, Any]:
        """As JSON takes it."""
        value = dict(self.given or {}) if self.component is None else method_to_dict(self.component)
        return {self.kind: value}


def plan_phases(name: str, parsed: Parsed) -> list[Phase]:
    """The phases of a run, each checked.

    Args:
        name: of the task.
        parsed: the run's arguments, `phases` among them.

    Raises:
        ValueError: what is no list of phases, an unknown edit or argument, a run that is split over ranks.
    """
    entries = parse_text(parsed.script.phases)
    if not isinstance(entries, list) or not entries:
        raise _no_phases(entries)
    _require_whole_models(parsed.args)
    phases = [_phase(number, entry, name, parsed) for number, entry in enumerate(entries, 1)]
    if phases[-1].kind == SUPPRESS and parsed.args.push_to_hub:
        raise input_error(
            expected="push_to_hub for weights that have forgotten",
            got="a run that ends with a suppression at inference",
            why="a push would bring the weights alone, which still know",
            fix="leave push_to_hub out, or add a training that distils it: docs/edits.md",
        )
    for phase, following in itertools.pairwise(phases):
        if phase.kind == SUPPRESS and following.kind != TRAIN:
            raise input_error(
                expected="a suppression as the last phase, or before a training that distils it",
                got=f"an {following.kind} after the suppression {phase.component.name}",
                why="it changes how the model answers, not its weights, which the next phase would change",
                fix="put it last",
            )
    return phases


def _phase(number: int, entry: Any, name: str, parsed: Parsed) -> Phase:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise _no_phases(entry)
    ((kind, spec),) = entry.items()
    require_choice(f"phase {number}", kind, KINDS)
    if kind == TRAIN:
        given = {} if spec in (None, True) else spec
        if not isinstance(given, Mapping):
            raise _no_phases(entry)
        return Phase(number, kind, given=given, parsed=_parsed(number, given, name, parsed))
    (component,) = components_of(spec, *_tables()[kind], f"phase {number}")
    return Phase(number, kind, component)


def _tables() -> dict[str, tuple[Any, Any]]:
    return {EDIT: (EDITS, Edit), SUPPRESS: (SUPPRESSIONS, Suppression)}


def _parsed(number: int, given: Mapping[str, Any], name: str, run: Parsed) -> Parsed:
    """The arguments of a training: its own, else those of the command line, else the recipe's."""
    from .. import parse_values

    refused = [argument for argument in given if argument in _OF_THE_RUN]
    if refused:
        raise input_error(
            expected=f"phase {number} with arguments of a training",
            got=f"{refused[0]}, which is the run's",
            why="rows, model and output are the same in all phases",
            fix=f"set {refused[0]} beside phases, not in one of them",
        )
    folder = Path(run.args.output_dir) / FOLDER / f"{number}-{TRAIN}"
    values = {argument: value for argument, value in run.recipe_values.items() if argument != "phases"} | dict(given)
    kept = kept_words(run.words, lambda flag: flag not in given and flag not in _OF_THE_COMMAND)
    return parse_values(name, values, [*kept, "--output_dir", str(folder)])


def neutral(name: str, parsed: Parsed, sets: Mapping[str, Any]) -> Parsed:
    """The arguments of the trainer that stands for the whole run: it measures, saves and writes, and never trains.

    Args:
        name: of the task.
        parsed: the run's arguments.
        sets: its rows by role, which the trainer is to count and to name in the record.
    """
    from .. import parse_values

    method = {
        "forget_loss": "grad_ascent",
        "retain_loss": "nll" if "retain" in sets else "none",
        "anchor_loss": "none",
        "levels": "holdout" if "holdout" in sets else "none",
        "forget_nll_bound": "levels" if "holdout" in sets else "none",
    }
    values = {argument: value for argument, value in parsed.recipe_values.items() if argument not in _OF_LOSSES}
    return parse_values(name, values | method, kept_words(parsed.words, lambda flag: flag not in _OF_LOSSES))


def _require_whole_models(args: UnlearningConfig) -> None:
    """Raise under DeepSpeed and FSDP, where no rank holds the weights that a phase hands to the next."""
    launch = "DeepSpeed" if args.deepspeed_plugin is not None else ""
    launch = "FSDP" if args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP") else launch
    if launch:
        raise input_error(
            expected="phases in one process, or on several with --accelerate_config ddp",
            got=f"a launch with {launch}",
            why="a phase reads and writes whole weights, and hands them to the next",
            fix="launch with ddp, or do the phases one by one: hf-unlearn edit, then hf-unlearn train on its result",
        )


def _no_phases(got: Any) -> ValueError:
    return input_error(
        expected='phases as a list, each entry with one of edit, train, suppress: [{"edit": "msa"}, {"train": {}}]',
        got=f"{type(got).__name__}" if not isinstance(got, Mapping) else f"an entry with {', '.join(map(str, got))}",
        why="they are done one after another",
        fix="docs/edits.md shows one",
    )
