"""Everything that a config can name, as a text for people and as data: losses, step wrappers, ..., suites, metrics."""

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ..attacks import ATTACKS, Attack
from ..component import support
from ..data.roles import Role
from ..edits import EDITS, Edit
from ..evaluation import SUITES
from ..losses import ANCHOR_LOSSES, FORGET_LOSSES, RETAIN_LOSSES, Loss
from ..losses.base import Needs
from ..metrics import METRIC_DESCRIPTIONS, METRICS, MetricFunction
from ..optimizers import Sophia
from ..plugins import PluginSource, PluginTable, plugin_source
from ..steps import STEP_WRAPPERS, StepWrapper
from ..steps.weighting import WEIGHTINGS
from ..suppression import SUPPRESSIONS, Suppression
from ..tasks import TASKS
from ..tasks.recipe_files import about_recipe, find_recipe, packaged_recipes


@dataclasses.dataclass(frozen=True)
class _Listing:
    """Names without a formula of their own, with what each is and the package of those that are a plugin's."""

    kind: str
    heading: str
    about: Mapping[str, str]
    sources: Mapping[str, PluginSource]


def _listings() -> list[_Listing]:
    # What only a suite of a plugin measures has a description, and no function for `evaluate_metric`.
    described = {name: METRIC_DESCRIPTIONS[name] for name in METRIC_DESCRIPTIONS.sources if name not in METRICS}
    metrics = _about(METRICS) | {name: metric.about or metric.label for name, metric in described.items()}
    described_recipes = {name: about_recipe(find_recipe(name)) for name in packaged_recipes()}
    recipes = {name: f"{about.description} ({about.measured_words})" for name, about in described_recipes.items()}
    suites = "SUITES (hf_unlearn.evaluation, or suite in the task custom)"
    return [
        _Listing("suite", suites, _about(SUITES), SUITES.sources),
        _Listing("metric", "METRICS (evaluate_metric)", metrics, METRIC_DESCRIPTIONS.sources | METRICS.sources),
        _Listing("task", "TASKS (task)", _about(TASKS), TASKS.sources),
        _Listing("recipe", "RECIPES (--config)", recipes, {}),
    ]


def render_methods() -> str:
    """Everything that a config can name, a block each, with the package of what is a plugin's."""
    words = (
        "lp_t: a token's log-prob (nats), NLL: a row's sum, nll: its mean, p_t = exp(lp_t), z_t: logits, h_t: hidden"
    )
    blocks = [textwrap.fill(words, _width())]
    blocks += ["FORGET LOSSES (forget_loss)", *(_loss(loss()) for loss in FORGET_LOSSES.values())]
    blocks += ["RETAIN LOSSES (retain_loss)", *(_loss(loss()) for loss in RETAIN_LOSSES.values())]
    blocks += ["ANCHOR LOSSES (anchor_loss)", *(_loss(loss()) for loss in ANCHOR_LOSSES.values())]
    blocks += ["STEP WRAPPERS (step_wrappers)", *(_wrapper(wrapper()) for wrapper in STEP_WRAPPERS.values())]
    blocks += ["WEIGHTING OF THE SIDES (weighting)", *(_part(rule(), []) for rule in WEIGHTINGS.values())]
    blocks += [
        "OPTIMIZERS (optim), beside Trainer's own",
        _block(
            "sophia  (Sophia)",
            [
                ("formula", "m / max(rho h, eps) clipped to +-1, m = EMA(g), h = EMA(g^2)"),
                ("arguments", f"optim_args: {_sophia_arguments()}"),
                ("paper", "Liu et al. 2023, arXiv:2305.14342; Jia et al. 2024 (SOUL), arXiv:2404.18239"),
            ],
        ),
    ]
    blocks += ["EDITS (phases, hf-unlearn edit)", *(_edit(edit()) for edit in EDITS.values())]
    blocks += ["SUPPRESSIONS (phases)", *(_suppression(one()) for one in SUPPRESSIONS.values())]
    blocks += ["ATTACKS (attack, hf-unlearn attack)", *(_attack(one()) for one in ATTACKS.values())]
    blocks += [_render_listing(listing) for listing in _listings()]
    return "\n\n".join(blocks)


def list_methods() -> list[dict[str, Any]]:
    """The same as data: kind, name, class, formula, arguments, needs, what it works with, paper, package."""
    tables: dict[str, PluginTable[Any]] = {
        "forget_loss": FORGET_LOSSES,
        "retain_loss": RETAIN_LOSSES,
        "anchor_loss": ANCHOR_LOSSES,
        "step_wrapper": STEP_WRAPPERS,
        "weighting": WEIGHTINGS,
        "edit": EDITS,
        "suppression": SUPPRESSIONS,
        "attack": ATTACKS,
    }
    methods = [_as_data(kind, made()) for kind, table in tables.items() for made in table.values()]
    for listing in _listings():
        methods += [
            {"kind": listing.kind, "name": name, "about": about} | _package(listing.sources.get(name))
            for name, about in listing.about.items()
        ]
    return methods


def _as_data(kind: str, part: Any) -> dict[str, Any]:
    described = {"kind": kind, "name": part.name, "class": type(part).__name__, "formula": part.formula}
    described |= {"arguments": dataclasses.asdict(part), "paper": part.paper} | _package(plugin_source(type(part)))
    if isinstance(part, Loss):
        described |= {"mean_over": part.unit, "needs": _needs(part.needs)}
    if isinstance(part, Attack):
        described |= {"threat": str(part.threat), "given": part.given, "score": part.score, "cost": part.cost}
    if isinstance(part, Edit):
        described |= {"reads": _sets_read(part), "cost": part.cost}
    if isinstance(part, Suppression):
        described |= {"reads": ", ".join(_named_sets(part)), "cost": part.cost, "restores": part.restores}
    if kind in ("weighting", "attack", "edit", "suppression"):
        return described
    return described | {"works_with": support(part.incompatible_with)}


def _package(source: PluginSource | None) -> dict[str, str]:
    return {} if source is None else {"package": source.package, "version": source.version}


def _about(table: PluginTable[Any]) -> dict[str, str]:
    """By name, what each is: the first line of a function's docstring, or the module of a task."""
    about = {}
    for name, entry in table.items():
        function = entry.function if isinstance(entry, MetricFunction) else entry
        lines = (inspect.getdoc(function) or "").splitlines()
        about[name] = entry if isinstance(entry, str) else lines[0] if lines else ""
    return about


def _render_listing(listing: _Listing) -> str:
    lines = [listing.heading]
    for name, what in listing.about.items():
        origin = f" (package {listing.sources[name]})" if name in listing.sources else ""
        lines += textwrap.wrap(f"  {name:20} {what}{origin}", _width(), subsequent_indent=" " * 23)
    return "\n".join(lines)


def _sophia_arguments() -> str:
    defaults = {name: parameter.default for name, parameter in inspect.signature(Sophia.__init__).parameters.items()}
    beta1, beta2 = defaults["betas"]
    return f"beta1={beta1}, beta2={beta2}, rho={defaults['rho']}, eps={defaults['eps']}"


def _loss(loss: Loss) -> str:
    unit = "answer tokens" if loss.unit == "token" else "rows"
    return _part(
        loss, [("mean over", unit), ("needs", _needs(loss.needs)), ("works with", support(loss.incompatible_with))]
    )


def _wrapper(wrapper: StepWrapper) -> str:
    return _part(wrapper, [("works with", support(wrapper.incompatible_with))])


def _attack(one: Attack) -> str:
    return _part(one, [("attacker", str(one.threat)), ("given", one.given), ("score", one.score), ("cost", one.cost)])


def _edit(edit: Edit) -> str:
    return _part(edit, [("reads", _sets_read(edit)), ("cost", edit.cost)])


def _sets_read(edit: Edit) -> str:
    return f"{', '.join(_named_sets(edit))} rows" + (
        "; a checkpoint from before the forget rows were learnt" if edit.needs_checkpoint else ""
    )


def _suppression(one: Suppression) -> str:
    reads = f"{', '.join(_named_sets(one))} rows"
    return _part(one, [("reads", reads), ("cost", one.cost), ("restores", one.restores)])


def _named_sets(part: Edit | Suppression) -> list[str]:
    return [name for name in ("forget", "retain", "holdout") if name in part.reads]


def _part(part: Any, more: list[tuple[str, str]]) -> str:
    arguments = ", ".join(f"{field.name}={getattr(part, field.name)}" for field in dataclasses.fields(part))
    package = str(plugin_source(type(part)) or "")
    entries = [("formula", part.formula), ("arguments", arguments), *more, ("paper", part.paper), ("package", package)]
    return _block(f"{part.name}  ({type(part).__name__})", entries)


def _block(heading: str, entries: list[tuple[str, str]]) -> str:
    lines = [heading]
    for word, text in entries:
        if text:
            indent = " " * 13
            lines += textwrap.wrap(f"  {word:10} {text}", _width(), subsequent_indent=indent, break_long_words=False)
    return "\n".join(lines)


def _width() -> int:
    return max(40, shutil.get_terminal_size().columns)


def _needs(needs: Needs) -> str:
    words = [f"{_names({Role.FORGET, *needs.roles})} rows"]
    for supplied, what in (
        (needs.hidden, "hidden states of {} rows at one layer"),
        (needs.reference_logps, "reference log-probs of {} rows"),
        (needs.reference_logits, "the reference's distributions on {} rows"),
        (needs.reference_hidden, "the reference's hidden states on {} rows"),
    ):
        if supplied:
            words.append(what.format(_names(supplied)))
    if needs.levels:
        words.append("the level of each forget row (`levels`)")
    return "; ".join(words)


def _names(roles: Iterable[Role]) -> str:
    return " and ".join(role.name.lower().replace("_", " ") for role in sorted(roles))
