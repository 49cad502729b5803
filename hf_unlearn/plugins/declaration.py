"""What a module of another package declares to add to this one, and where it came from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..component import Component


@dataclass(frozen=True)
class PluginSource:
    """The package that something comes from.

    Attributes:
        package: name of the distribution; of a module that no distribution holds, the module's.
        version: of the distribution; "" where there is none.
        module: that declares it.
    """

    package: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()


@dataclass(frozen=True)
class Plugin:
    """What a module adds to hf_unlearn. The module assigns one to the name `HF_UNLEARN`.

    Attributes:
        forget_losses: classes derived from `hf_unlearn.losses.Loss`, for `forget_loss`.
        retain_losses: likewise, for `retain_loss`.
        anchor_losses: likewise, for `anchor_loss`.
        step_wrappers: classes derived from `hf_unlearn.steps.StepWrapper`.
        weightings: classes derived from `hf_unlearn.steps.weighting.Weighting`.
        attacks: classes derived from `hf_unlearn.attacks.Attack`.
        edits: classes derived from `hf_unlearn.edits.Edit`.
        suppressions: classes derived from `hf_unlearn.suppression.Suppression`.
        metrics: `hf_unlearn.metrics.MetricDescription`s of what a suite measures, or `MetricFunction`s with one, which
            `evaluate_metric` takes too.
        suites: by name, what makes a `hf_unlearn.evaluation.Suite` of that name.
        tasks: by name, the module with `Arguments`, `DEFAULT_RECIPE` and `make_task` (as `hf_unlearn.tasks.custom`),
            imported when the task is run.

    Raises:
        ValueError: a field of another kind.
    """

    forget_losses: Sequence[type[Component]] = ()
    retain_losses: Sequence[type[Component]] = ()
    anchor_losses: Sequence[type[Component]] = ()
    step_wrappers: Sequence[type[Component]] = ()
    weightings: Sequence[type[Component]] = ()
    attacks: Sequence[type[Component]] = ()
    edits: Sequence[type[Component]] = ()
    suppressions: Sequence[type[Component]] = ()
    metrics: Sequence[Any] = ()
    suites: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in fields(self):
            given, named = getattr(self, group.name), group.name in ("suites", "tasks")
            right = isinstance(given, Mapping) if named else isinstance(given, list | tuple)
            if not right:
                kind = "a mapping from names" if named else "a list"
                raise ValueError(f"expected {group.name} of a Plugin to be {kind}, got {type(given).__name__}")

    def declared(self) -> Iterator[object]:
        """Everything that it adds."""
        for group in fields(self):
            given = getattr(self, group.name)
            yield from given.values() if isinstance(given, Mapping) else given


def components(declared: Sequence[Any], kind: type[Component]) -> dict[str, Any]:
    """Classes of losses, step wrappers and the like by their names.

    Raises:
        ValueError: one is no class of that kind, or has no name of its own.
    """
    for component in declared:
        if not isinstance(component, type) or not issubclass(component, kind):
            raise ValueError(f"expected a class derived from {kind.__name__}, got {component!r}")
        if not isinstance(getattr(component, "name", None), str) or not hasattr(component, "formula"):
            raise ValueError(
                f"expected {component.__name__} to have a name and a formula, as class attributes of {kind.__name__}"
            )
    return {component.name: component for component in declared}
