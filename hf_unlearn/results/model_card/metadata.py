"""The YAML block of a model card: what the Hub files a model under, and only what it accepts."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers.utils import logging

from ..attack_words import is_finite, tried_classes
from ..evaluation_result import EvaluationResult
from ..hub.names import LANGUAGE, LICENSE, is_repository
from ..record import RunRecord, SetRecord
from ..redaction import is_redacted
from ..table import description_of, label_of
from .results import row_counts, trainer_figures
from .text import finite, hub_id, one_line

logger = logging.get_logger(__name__)

_TAGS = ("unlearning", "machine-unlearning", "hf_unlearn")
_TASK = "text-generation"


def card_data(record: RunRecord, *, title: str, adapter: bool) -> ModelCardData:
    """The metadata of a run's model.

    Args:
        record: of the run.
        title: of the card, which names the model in its index of results.
        adapter: whether the weights beside the card are an adapter, not a whole model.
    """
    base, metadata = hub_id(record.model), record.metadata
    results = [*_results(record), *_attack_results(record)]
    more: dict[str, Any] = {"base_model_relation": "adapter" if adapter else "finetune"} if base else {}
    return ModelCardData(
        base_model=base,
        datasets=_datasets(record) or None,
        eval_results=results or None,
        language=_accepted("language", metadata.language, LANGUAGE.fullmatch) or None,
        library_name="peft" if adapter else "transformers",
        license=next(iter(_accepted("license", [metadata.license], LICENSE.fullmatch)), None),
        model_name=title if results else None,
        pipeline_tag=_TASK,
        tags=_tags(record, base if adapter else None),
        **more,
        **_emissions(record),
    )


def _accepted(what: str, values: list[Any], accepts: Any) -> list[Any]:
    """The values that the Hub accepts; for others it would refuse the whole card."""
    given = [value for value in values if value]
    good = [value for value in given if isinstance(value, str) and accepts(value)]
    refused = [value for value in given if value not in good]
    if refused:
        logger.warning(f"The card leaves out {what} {', '.join(map(repr, refused))}: the Hub would refuse the card.")
    return list(dict.fromkeys(good))


def _datasets(record: RunRecord) -> list[str]:
    known = [name for name in map(hub_id, record.sets.values()) if name]
    return list(dict.fromkeys([*known, *_accepted("datasets", record.metadata.datasets, is_repository)]))


def _tags(record: RunRecord, adapted: str | None) -> list[str]:
    tags: list[Any] = [*_TAGS, *record.methods]
    if (record.model.adapter or {}).get("kind") == "LORA":
        tags.append("lora")
    if adapted:
        tags.append(f"base_model:adapter:{adapted}")
    tags = [one_line(tag) for tag in (*tags, *record.metadata.tags) if tag]
    return _accepted("tags", tags, lambda tag: tag.strip() and not is_redacted(tag))


def _results(record: RunRecord) -> list[EvalResult]:
    """Finite figures after unlearning, those of the suite's headline where it has one."""
    after = record.evaluations.get("after")
    if after is None:
        # Its rows may be others than those that were trained on, so no dataset is named.
        return [
            _result(name, label_of(name.removeprefix("eval_")), value, "evaluation-rows", "evaluation rows of the run")
            for name, value in trainer_figures(record).items()
        ]
    names = [name for name in after.headline if name in after.metrics] or list(after.metrics)
    values = {name: finite(after.metrics[name].value) for name in names}
    return [
        _result(name, label_of(name, [after]), value, *_dataset(name, record, after))
        for name, value in values.items()
        if value is not None
    ]


def _attack_results(record: RunRecord) -> list[EvalResult]:
    """The excess of the worst attack of each class that was tried, of those that have a control."""
    report = record.attack_report
    if report is None:
        return []
    rows = record.sets.get("forget", SetRecord())
    counted = f"forget {report.reported_rows} rows"
    name = hub_id(rows)
    dataset = (name, f"{name} ({counted})", rows.revision) if name else ("attacked-rows", f"{counted}, attacked", None)
    return [
        _result(f"attack_excess_{threat}", f"excess of the worst attack ({threat})", worst.excess.value, *dataset)
        for threat, worst in report.worst.items()
        if threat in tried_classes(report) and worst.excess is not None and is_finite(worst.excess)
    ]


def _dataset(metric: str, record: RunRecord, after: EvaluationResult) -> tuple[str, str, str | None]:
    """Type, name and revision of what a metric is about; of a set that is not on the Hub, the suite's sets."""
    described = description_of(metric, [after]).rows
    # A set that was not trained on is no dataset of the run.
    role = described if described in ("forget", "retain") else ""
    rows = record.sets.get(role, SetRecord())
    name, counts = hub_id(rows), row_counts(after, role)
    if name:
        return name, f"{name} ({counts[0]} rows)" if counts else name, rows.revision
    every = row_counts(after)
    title = f"sets of the {after.suite} suite"
    return f"{after.suite}-suite", f"{title} ({', '.join(every)} rows)" if every else title, None


def _result(
    metric: str, label: str, value: float, dataset_type: str, dataset_name: str, revision: str | None = None
) -> EvalResult:
    return EvalResult(
        task_type=_TASK,
        task_name="Text Generation",
        dataset_type=dataset_type,
        dataset_name=dataset_name,
        dataset_revision=revision,
        metric_type=metric,
        metric_name=label,
        metric_value=_rounded(value),
    )


def _rounded(value: float) -> float:
    """To four significant digits, more than any interval of such figures is worth."""
    return float(f"{value:.4g}")


def _emissions(record: RunRecord) -> dict[str, Any]:
    emitted = finite(record.emissions_kg)
    if emitted is None:
        return {}
    emissions: dict[str, Any] = {
        "emissions": _rounded(1000 * emitted),  # the Hub counts grams
        "source": "codecarbon",
        "training_type": "fine-tuning",
    }
    device = record.hardware.get("device")
    return {"co2_eq_emissions": emissions | ({"hardware_used": str(device)} if device else {})}
