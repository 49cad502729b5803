"""Markdown of a card's parts: tables, numbers, sets and the objective in words."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub.utils import yaml_dump

from ..hub.names import is_repository
from ..record import ComponentRecord, ModelRecord, ObjectiveRecord, SetRecord, TermRecord

ROLES = ("forget", "retain", "holdout")
NO_FIGURE = "-"
_LOGGED_STEPS = 8
_LOG_FIRST = (
    *("forget/", "retain/", "anchor/"),
    *("forget_nll", "retain_nll", "holdout_nll", "bound_share", "level_distance"),
)
_LOG_WITHOUT = ("loss", "epoch", "step", "grad_norm", "learning_rate", "num_input_tokens_seen")
_NOT_FINITE = ("nan", "inf", "-inf")
_HASH_DIGITS = 16
_FEW_ROWS = 10  # below which the rows of a set may be guessed
_REVISION_DIGITS = 12
_KINDS = {"LORA": "LoRA"}
_PARTS = {"step": "step wrapper", "weighting": "weighting"}  # of the objective, beside losses
# Backticks, stars and tildes; an underscore where a word begins or ends, as emphasis does.
_MARKS = re.compile(r"[`*~]|(?<![^\W_])_|_(?![^\W_])")
# What would start a heading, a quote, a list, a rule or a definition at the start of a line.
_BLOCK = re.compile(r"^(\d*)([#>+=\[-]|(?<=\d)[.)])(?= |$|[^\]]*\]:)")
_BOUNDS = {
    "log_vocab": "log V, the level of a uniform guess",
    "holdout": "the mean that the model before unlearning gives to the holdout rows",
    "holdout_quantiles": "each row has its own, the quantile of the holdout rows at its rank",
    "levels": "each row has its own, what a model that never saw it would give it by estimate",
}


def plain(text: Any) -> str:
    """Text on one line that is nothing but text to Markdown: no tag, link, image, code, emphasis or block."""
    line = " ".join(str(text).split()).replace("\\", "\\\\").replace("<", "&lt;")
    line = _MARKS.sub(lambda match: f"\\{match[0]}", line)
    # Of a link the text and its brackets stay; an address is not made one by the Hub.
    line = line.replace("](", "\\](").replace("][", "\\][").replace("://", "&#58;//")
    return _BLOCK.sub(lambda match: f"{match[1]}\\{match[2]}", line)


def one_line(text: Any) -> str:
    """Text on one line, as it is: for a code block."""
    return " ".join(str(text).split())


def code(text: Any) -> str:
    """A code span on one line, with longer fences where the text has backticks itself."""
    line = " ".join(str(text).split())
    if "`" not in line:
        return f"`{line}`"
    fence = "`" * (max(map(len, re.findall("`+", line))) + 1)
    return f"{fence} {line} {fence}"


def fenced(text: str, language: str) -> str:
    """A code block, with a longer fence where the text has one itself."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a `|` in a cell would end it, so it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def finite(value: Any) -> float | None:
    """A number that is one; None for all else, and for NaN and infinities, which a record may hold as words."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: Any) -> str:
    """Three significant digits, thousands in full."""
    real = finite(value)
    if real is None:
        return NO_FIGURE if value is None else "not finite"
    whole = abs(real) >= 100 or real == int(real)
    return f"{real:,.0f}" if whole else f"{real:.3g}"


def hub_id(record: ModelRecord | SetRecord) -> str | None:
    """Of a repository on the Hub; None for a folder here, whatever the record calls it."""
    return record.id if record.origin == "hub" and is_repository(record.id) else None


def adapter_kind(model: ModelRecord) -> str:
    """ "LoRA", or what PEFT calls another adapter; "" where there is none."""
    kind = "" if model.adapter is None else str(model.adapter.get("kind") or "PEFT")
    return plain(_KINDS.get(kind, kind))


def link(repository: str, revision: str | None, kind: str = "") -> str:
    """A link to a repository of the Hub, with the revision."""
    at = f" @ {code(revision[:_REVISION_DIGITS])}" if revision else ""
    return f"[{repository}](https://huggingface.co/{kind}{repository}){at}"


def model_words(model: ModelRecord) -> str:
    """Which model it was before unlearning."""
    name, architecture = hub_id(model), f" ({code(model.architecture)})" if model.architecture else ""
    if model.fitted_from:
        return f"a model{architecture} that the run made first, by fitting {plain(model.fitted_from)} to the rows"
    if name:
        return link(name, model.revision)
    if model.origin == "lab":
        return f"a small model{architecture} of hf_unlearn's lab, trained on made-up text alone"
    return f"a model{architecture} that is not on the Hub"


def rows_words(rows: SetRecord) -> str:
    """How many rows from where, as part of a sentence."""
    count = "a stream of rows" if rows.rows is None else "1 row" if rows.rows == 1 else f"{rows.rows:,} rows"
    name = hub_id(rows)
    if name:
        return f"{count} of {link(name, rows.revision, 'datasets/')}"
    if rows.origin == "lab":
        return f"{count} of the lab's made-up world{f' {plain(rows.id)}' if rows.id else ''}"
    return f"{count} {rows.origin_words}"


def sets_table(sets: Mapping[str, SetRecord]) -> str:
    """Role, rows, source and hash of each set; "" where there are none."""
    hashed = any(set_record.sha256 for set_record in sets.values())
    rows = []
    for role in sorted(sets, key=lambda name: (*ROLES, name).index(name)):
        set_record = sets[role]
        name = hub_id(set_record)
        source = link(name, set_record.revision, "datasets/") if name else f"rows {set_record.origin_words}"
        if set_record.origin == "lab":
            source = f"the lab's world{f' {plain(set_record.id)}' if set_record.id else ''}, made up"
        count = "a stream" if set_record.rows is None else f"{set_record.rows:,}"
        digest = code(set_record.sha256[:_HASH_DIGITS]) if set_record.sha256 else NO_FIGURE
        rows.append([plain(role), count, source, *([digest] if hashed else [])])
    header = ["role", "rows", "source", *(["SHA-256 of the tokens"] if hashed else [])]
    return table(header, rows) if rows else ""


def hash_words(sets: Mapping[str, SetRecord]) -> str:
    """The end of the sentence that no row is shown: where the hashes stand, and what those of few rows tell."""
    hashed = {role: set_record for role, set_record in sets.items() if set_record.sha256}
    if not hashed:
        return "."
    whole = "the hashes" if len(hashed) == len(sets) else "the hashes that are known"
    few = [plain(role) for role in hashed if (hashed[role].rows or _FEW_ROWS) < _FEW_ROWS]
    guess = (
        f" The hashes have no salt: whoever guesses all the rows of a set as small as {listed(few)} can confirm the "
        "guess by its hash."
    )
    return f", which has {whole} in full.{guess if few else ''}"


def formula(objective: ObjectiveRecord) -> str:
    """L = w_f (...) + w_r (...) + w_a (...), with the numbers of the run; terms by the names that the log has."""
    sides = []
    weights = {"forget": objective.forget_weight, "retain": objective.retain_weight, "anchor": objective.anchor_weight}
    for side, weight in weights.items():
        terms = [f"{term.weight:g} * {side}/{term.name}" for term in objective.terms if term.side == side]
        if terms:
            sides.append(f"{weight:g} * ({' + '.join(terms)})")
    return f"L = {' + '.join(sides)}"


def objective_table(objective: ObjectiveRecord) -> str:
    """What each part of the objective computes, with its arguments and its paper."""
    parts: list[tuple[str, ComponentRecord]] = [
        (f"{component.side}/{component.name}", component) for component in objective.terms
    ]
    parts += [(f"step/{component.name}", component) for component in objective.step_wrappers]
    if objective.weighting.own or objective.weighting.name != "fixed":
        parts.append((f"weighting/{objective.weighting.name}", objective.weighting))
    rows = []
    for name, part in parts:
        arguments = ", ".join(f"{key}={value}" for key, value in part.arguments.items() if key != "weight")
        kind = _PARTS.get(name.partition("/")[0], "loss")
        computed = [f"{code(part.own)}, a {kind} of the user's own"] if part.own else []
        computed += [code(part.formula)] if part.formula else []
        cells = [code(arguments) if arguments else NO_FIGURE, plain(part.paper) or NO_FIGURE]
        origin = f" (package {code(part.origin)})" if part.origin else ""
        rows.append([code(name), (": ".join(computed) or "not described") + origin, *cells])
    return table(["part", "computes", "arguments", "paper"], rows)


def bound_words(bound: Mapping[str, Any], *, levels: bool) -> str:
    """Where a forget row stopped pushing; "" where that is not known. With `levels` a loss may lead rows to them."""
    if "setting" not in bound:
        return ""
    setting = bound["setting"]
    if setting is None:
        return "none." if levels else "none; forget rows push to the end of the run."
    level = f"{number(bound['nats'])} nats per token" if finite(bound.get("nats")) is not None else ""
    if finite(bound.get("low")) is not None and finite(bound.get("high")) is not None:
        level = f"{number(bound['low'])} to {number(bound['high'])} nats per token"
    named = f"{code(setting)}: {_BOUNDS[setting]}" if setting in _BOUNDS else "a number that was set"
    past = "is pulled back" if bound.get("sides") == "both" else "gives no gradient"
    return f"a forget row {past} while its NLL is at {level or 'the bound'} or above ({named})."


def log_table(log: Sequence[Mapping[str, Any]]) -> str:
    """The components of the loss at a few evenly spaced steps; "" where none were logged."""
    logged = [entry for entry in log if "loss" in entry and "step" in entry]
    spaces = min(len(logged), _LOGGED_STEPS) - 1
    chosen = [logged[round(i * (len(logged) - 1) / max(spaces, 1))] for i in range(spaces + 1)]
    present = dict.fromkeys(name for entry in chosen for name, value in entry.items() if _is_component(name, value))
    names = sorted(present, key=_place)
    rows = [[str(entry["step"]), *(number(entry.get(name)) for name in ("loss", *names))] for entry in chosen]
    return table(["step", "loss", *map(code, names)], rows) if rows else ""


def _is_component(name: str, value: Any) -> bool:
    # Saved records hold NaN and infinities as words; a component that diverged is shown.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return name not in _LOG_WITHOUT and (is_number or value in _NOT_FINITE)


def _place(name: str) -> int:
    """Where a column stands: sides first, as in the formula, what else was logged last."""
    return next((i for i, start in enumerate(_LOG_FIRST) if name.startswith(start)), len(_LOG_FIRST))


def arguments_yaml(arguments: Mapping[str, Any]) -> str:
    """Arguments as a configuration file has them."""
    return fenced(yaml_dump(dict(arguments), sort_keys=True), "yaml")


def specification(part: ComponentRecord) -> Any:
    """A part as `UnlearningConfig` takes it: its name, or a mapping with its arguments."""
    weight = {"weight": part.weight} if isinstance(part, TermRecord) and part.weight != 1 else {}
    return {"name": part.name, **part.arguments, **weight} if part.arguments or weight else part.name
