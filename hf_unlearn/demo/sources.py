"""Which models the columns of the page are: those of runs' folders, by role, and where their weights lie."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import input_error, require_choice
from ..results.adapter_config import ADAPTER_CONFIG, read_adapter_config
from ..results.report import Run, read_run
from ..tasks import make_task
from ..tasks.arguments import Parsed
from ..tasks.command_file import COMMAND_FILE, read_command, saved_models
from ..tasks.saved_run import require_weights
from ..tasks.task import require_model

ROLES = ("before", "after", "oracle")


@dataclass(frozen=True)
class RunFolder:
    """A run as the page needs it.

    Attributes:
        folder: of the run.
        title: its name, told apart from others of the same name by a number.
        run: what the report has of it.
        task: name of the task; None for the run of a script.
        parsed: its arguments; None for the run of a script.
    """

    folder: Path
    title: str
    run: Run
    task: str | None = None
    parsed: Parsed | None = None

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """With which the run loads its models."""
        return {} if self.parsed is None else self.parsed.args.init_kwargs

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter lies in the folder, in place of a whole model."""
        return (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def base(self) -> str | None:
        """The model that its adapter stands on; None for a whole model."""
        return read_adapter_config(self.folder).get("base_model_name_or_path") if self.is_adapter else None


@dataclass(frozen=True)
class Source:
    """A model of the page.

    Attributes:
        name: of its column.
        place: folder or id on the Hub of its weights.
        run: whose model it is; how prompts are written and weights are loaded is the run's.
        adapter_off: whether it is the model of the run's folder with its adapter off.
    """

    name: str
    place: str
    run: RunFolder
    adapter_off: bool = False


def open_runs(folders: Sequence[str]) -> list[RunFolder]:
    """The runs in some folders.

    Raises:
        ValueError: no run, or no weights, lie in one of them.
    """
    opened = []
    for name in folders:
        folder = Path(name).expanduser().absolute()
        run = read_run(folder)
        require_weights(folder)
        command: tuple[str | None, Parsed | None] = (None, None)
        if (folder / COMMAND_FILE).is_file():
            command = read_command(folder)
        opened.append(RunFolder(folder, run.title, run, *command))
    counts, taken = Counter(one.title for one in opened), Counter[str]()
    titled = []
    for one in opened:
        taken[one.title] += 1
        titled.append(one if counts[one.title] == 1 else replace(one, title=f"{one.title} ({taken[one.title]})"))
    return titled


def sources_of(
    runs: Sequence[RunFolder],
    roles: Sequence[str] | None = None,
    *,
    before: str | None = None,
    oracle: str | None = None,
) -> list[Source]:
    """The models of the page: those of one run by role, or of several runs the model after unlearning of each.

    Models of several runs that lie in the same place are one column.

    Args:
        runs: at least one.
        roles: of `ROLES`; None for all that a single run has, and for "after" of several runs.
        before: place of the model before unlearning, where the run does not say.
        oracle: place of a model that has never seen the forget rows.

    Raises:
        ValueError: an unknown role, or a run that does not say where such a model lies.
    """
    for role in roles or ():
        require_choice("--models", role, ROLES)
    several, named = len(runs) > 1, {"before": before, "oracle": oracle}
    wanted = roles or (("after",) if several and not any(named.values()) else ROLES)
    found: dict[str, Source] = {}
    for role in ROLES:
        if role not in wanted:
            continue
        for run in runs:
            place = str(run.folder) if role == "after" else named[role] or _place(run, role)
            if place is None and roles is None and role == "oracle":
                continue  # nobody asked for it by name
            if place is None:
                raise _unknown(run, role)
            require_model(place)
            name = role if not several else run.title if role == "after" else f"{role}, {run.title}"
            source = Source(name, place, run, role == "before" and place == run.base)
            known = found.get(place)
            if known is not None:
                # One model of several runs needs none of their names; where it is in memory with an adapter, once.
                source = replace(known if known.adapter_off else source, name=role)
            found[place] = source
    return list(found.values())


def _place(run: RunFolder, role: str) -> str | None:
    """Where a run says that its model before unlearning, or its retrained one, lies; None where it does not."""
    if role == "oracle":
        return saved_models(run.folder).get("oracle")
    if run.parsed is None or run.task is None:
        model = run.run.record.model
        return run.base or (model.id if model.origin == "hub" else None)
    if run.base is not None and run.parsed.script.continue_from is None:
        return run.base
    # The task knows which model it made or took: fitted first, the lab's, or that of an earlier run.
    task = make_task(run.task, run.parsed)
    if task.cache is not None:
        task.cache.close()
    return task.model


def _unknown(run: RunFolder, role: str) -> ValueError:
    others = " ".join(other for other in ROLES if other != role)
    return input_error(
        expected=f"the folder of a run that says where its model {role!r} lies",
        got=f"{run.title}, which does not",
        why="there is nothing to load beside the model after unlearning",
        fix=f"name it with --{role} MODEL, or choose others: --models {others}",
    )
