"""`evaluate_metric`: a metric of the registry as an `evaluate.Metric`."""

from typing import TYPE_CHECKING, Any

from ..errors import input_error, nearest
from .registry import METRIC_OPTIONS, METRICS, unknown_setting

if TYPE_CHECKING:
    from evaluate import Metric


def evaluate_metric(name: str, **settings: Any) -> "Metric":
    """A metric as an `evaluate.Metric`, which needs no network: `compute`, `add_batch` and `evaluate.combine` work.

    `compute` gives {name: value, name_n: n} and, where the metric has an interval, name_low and name_high.

    Args:
        name: of METRICS.
        settings: arguments of the metric's function that are no rows (such as kind="rouge1"), and those of
            evaluate.Metric (cache_dir, experiment_id, keep_in_memory, num_process, process_id, timeout).

    Raises:
        ValueError: another name, or a setting that the metric does not have.
    """
    # evaluate imports torch and transformers, which whoever calls the plain functions has no use for.
    from .metric_adapter import FunctionMetric

    if name not in METRICS:
        raise input_error(
            expected="the name of a metric",
            got=repr(name),
            why="there is nothing to compute under it",
            fix=nearest(str(name), METRICS),
        )
    entry = METRICS[name]
    options = {option: settings.pop(option) for option in METRIC_OPTIONS if option in settings}
    for setting in settings:
        if setting not in entry.settings:
            raise unknown_setting(name, setting, entry)
    return FunctionMetric(name, settings, **options)
