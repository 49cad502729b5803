"""`render_card`: metadata and the values that the card's template is rendered with."""

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import jinja2
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ...errors import input_error
from ..deletion_words import HEADING, deletion_words
from ..phase_record import EDIT, SUPPRESS, TRAIN
from ..record import ATTACK_PLOTS, RECORD_FILE, RunRecord
from ..record_parts import ComponentRecord
from ..record_words import level_words, reference_words
from ..redaction import is_redacted, redacted
from ..verdict import GLOSSARY, verdict
from .alt_texts import with_alt_texts
from .attacks import attack_sections
from .metadata import card_data
from .phases import phase_blocks, suppression_words
from .results import answers_table, claim, result_tables, warnings
from .snippets import citations, loading_code, training_code
from .text import (
    adapter_kind,
    arguments_yaml,
    bound_words,
    code,
    fenced,
    formula,
    hash_words,
    hub_id,
    log_table,
    model_words,
    objective_table,
    one_line,
    plain,
    rows_words,
    sets_table,
)
from .training import training_facts

_TEMPLATE = "model_card.md.jinja"
# As pip takes it; all else in a record would stand in a command that readers copy.
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")


def render_card(
    record: RunRecord,
    *,
    repo_id: str | None = None,
    plots: Mapping[str, str] | None = None,
    merged: bool | None = None,
) -> str:
    """README.md of a run: YAML metadata and text, from the record alone. The same record gives the same bytes.

    No row is in a record, so none is in a card; paths and tokens that got into a record's texts are taken out.

    Args:
        record: of the run.
        repo_id: where the card goes to on the Hub, for the code that loads the model; None for that of the record's
            metadata, or else a placeholder.
        plots: files beside the card by what they show, e.g. {"Losses over the steps": "plots/losses.png"}.
        merged: whether the weights beside the card have the adapter merged into them; None as the record has it.

    Raises:
        ValueError: `repo_id` is no name of a repository, or a plot does not lie beside the card.
    """
    repo_id = record.metadata.repo_id if repo_id is None else repo_id
    _require_repository(repo_id)
    files = {title: _image(file) for title, file in (plots or {}).items()}
    record = redacted(record)
    adapter = record.removable_adapter if merged is None else record.model.adapter is not None and not merged
    title = _title(record)
    values = _facts(record, repo_id, adapter) | _sections(record, adapter) | {"title": title}
    images = with_alt_texts(files, record)
    attacks = [(alt, file) for alt, file in images if PurePosixPath(file).name.startswith(ATTACK_PLOTS)]
    values |= {"images": [image for image in images if image not in attacks], "attack_images": attacks}
    body = _template().render(values)
    return f"---\n{card_data(record, title=title, adapter=adapter).to_yaml(line_break=chr(10))}\n---\n\n{body}"


@functools.cache
def _template() -> jinja2.Template:
    """Compiled once: that takes ten times as long as to fill it in, and every save of a run writes a card."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = (importlib.resources.files("hf_unlearn.results") / "templates" / _TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text)


def _facts(record: RunRecord, repo_id: str | None, adapter: bool) -> dict[str, Any]:
    """What the sentences of the template turn on."""
    version = record.versions.get("hf_unlearn", "")
    version = version if _PACKAGE.fullmatch(version) else ""
    return {
        "record_file": RECORD_FILE,
        "adapter": adapter,
        "was_adapter": record.model.adapter is not None,
        "made_by": _made_by(record),
        "kind": adapter_kind(record.model),
        "base": model_words(record.model),
        "public_base": hub_id(record.model) is not None,
        "purpose": _purpose(record),
        "earlier_run": plain(record.model.earlier_run or ""),
        "merged_later": record.model.adapter is not None and not adapter and not record.model.merged,
        "lab_base": adapter and record.model.origin == "lab",
        "loading": loading_code(record, repo_id, adapter),
        "push": f"hf-unlearn push path/to/this/folder {repo_id or 'owner/name'} --merge",
        "template": code(json.dumps(record.arguments["template"], ensure_ascii=False))
        if record.arguments.get("template")
        else "",
        "recipe": one_line(record.recipe or ""),
        "install": f"pip install hf-unlearn=={version}{_packages(record)}"
        if version and _PACKAGE.fullmatch(version)
        else "pip install hf-unlearn",
        "seed": record.seed,
    }


def _sections(record: RunRecord, adapter: bool) -> dict[str, Any]:
    """What the sections show; an empty one is left out whole."""
    # What lies beside the card decides, whatever the record says: an adapter that is merged for a push comes not off.
    beside = replace(record, model=replace(record.model, merged=not adapter))
    objective, judged = record.objective, verdict(beside)
    return {
        "claim": claim(record, judged),
        "answers": answers_table(judged.answers),
        "reasons": [(answer.question, plain(answer.details)) for answer in judged.answers],
        "glossary": [(word, plain(meaning)) for word, meaning in GLOSSARY.items()],
        "deletion": [(heading, plain(text)) for heading, text in deletion_words(beside)],
        "deletion_heading": HEADING,
        "verdict": f"**Verdict: {judged.level}.** {plain(judged.sentence)}",
        "results": result_tables(record),
        "warnings": warnings(record),
        "attacks": attack_sections(record, adapter=adapter),
        "sets": sets_table(record.sets),
        "hashes": hash_words(record.sets),
        "holdout": "holdout" in record.sets,
        "suppression": suppression_words(record),
        "phases": phase_blocks(record.phases),
        "phases_count": "one phase" if len(record.phases) == 1 else f"{len(record.phases)} phases",
        "objective": objective_table(objective) if objective.terms else "",
        "formula": fenced(formula(objective), "text"),
        "bound": bound_words(objective.bound, levels=record.levels is not None),
        "levels": _levels(record),
        "weighting": _weighting(objective.weighting),
        "optimizer": code(objective.optimizer) if objective.optimizer else "",
        "reference": reference_words(record.reference),
        "facts": training_facts(record),
        "log": log_table(record.log),
        "arguments": arguments_yaml(record.arguments) if record.arguments else "",
        "versions": ", ".join(f"{plain(name)} {plain(version)}" for name, version in record.versions.items()),
        "reproduction": training_code(record),
        "citations": citations(record),
    }


def _made_by(record: RunRecord) -> str:
    """What was done to the weights, as a noun."""
    kinds = {phase.kind for phase in record.phases} or {TRAIN}
    words = {EDIT: "editing its weights", TRAIN: "fine-tuning", SUPPRESS: "suppressing its answers"}
    return " and ".join(word for kind, word in words.items() if kind in kinds)


def _levels(record: RunRecord) -> str:
    """Where the levels come from; with their warnings where there are no results beside which these stand."""
    if record.levels is None:
        return ""
    poor = [] if "after" in record.evaluations else [plain(f"Warning: {text}") for text in record.levels.warnings]
    every = record.arguments.get("recalibrate_steps")
    return " ".join([level_words(record.levels, by_task=record.task is not None, every=every), *poor])


def _weighting(part: ComponentRecord) -> str:
    """What moves the weight of the retain side; "" where nothing does."""
    return code(part.own or part.name) if part.own or part.name != "fixed" else ""


def _packages(record: RunRecord) -> str:
    """The packages of plugins that the run used, as pip takes them; modules that no package holds are left out."""
    packages = {part.package: part.version for part in record.parts if part.package and part.version}
    suites = [result.package.partition(" ") for result in record.evaluations.values()]
    packages |= {package: version for package, _, version in suites if version}
    named = {name: version for name, version in packages.items() if _PACKAGE.fullmatch(name)}
    return "".join(f" {name}=={version}" for name, version in named.items() if _PACKAGE.fullmatch(version))


def _title(record: RunRecord) -> str:
    unlearned = f"Unlearned {hub_id(record.model) or 'model'}"
    names = (plain(name) for name in (record.metadata.model_name, record.name) if name)
    return next((name for name in names if name and not is_redacted(name)), unlearned)


def _purpose(record: RunRecord) -> str:
    """What the model was to forget and to keep, as the end of a sentence."""
    forget, retain = record.sets.get("forget"), record.sets.get("retain")
    kept = f" and keep {rows_words(retain)}" if retain else ""
    return f"forget {rows_words(forget) if forget else 'a set of rows'}{kept}"


def _require_repository(repo_id: str | None) -> None:
    if repo_id is None:
        return
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise input_error(
            expected="repo_id as the Hub names repositories, owner/name",
            got=repr(repo_id),
            why="the card's code loads the model from there",
            fix="pass repo_id='owner/name', or leave it out for a placeholder",
        ) from None


def _image(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file:
        raise input_error(
            expected="plots as files beside the card, e.g. 'plots/losses.png'",
            got="a path that leads elsewhere",
            why="the Hub shows what lies in the repository, and a path of this machine would be published",
            fix="write the plots into the run's folder and pass their names relative to it",
        )
    return file.replace(" ", "%20")
