"""The group of metrics that says how near forget rows' losses are to those of rows never seen, and the oracle's."""

import numpy as np

from ... import metrics
from ...results.evaluation_result import EvaluationResult
from ..evidence import Evidence, ScoredRows
from .metric_groups import Metrics

_FEWEST = 2  # rows of either set that a classifier can be fitted and tested on


def unseen_metrics(evidence: Evidence) -> Metrics:
    """Distances of the forget rows' losses from the holdout rows', what chance gives, and a classifier of losses.

    With the oracle's result also how near the losses of the same rows are to the oracle's.
    """
    forget, unseen = evidence.scored["forget"], evidence.scored["holdout"]
    measured: Metrics = {}
    for name, losses, others in (
        ("level", list(forget.nll_per_token), list(unseen.nll_per_token)),
        ("token", _token_losses(forget), _token_losses(unseen)),
    ):
        measured[f"{name}_ks"] = metrics.loss_distance(losses, others)
        measured[f"{name}_ks_chance"] = metrics.chance_distance(others, len(losses))
    if min(len(forget), len(unseen)) >= _FEWEST:
        features = [metrics.loss_features(evidence.scored[name].logps, evidence.texts[name]) for name in _SETS]
        measured["loss_features_auc"] = metrics.loss_classifier_auc(*features)
    return measured | ({} if evidence.oracle is None else _beside_oracle(forget, evidence.oracle))


_SETS = ("forget", "holdout")


def _beside_oracle(forget: ScoredRows, oracle: EvaluationResult) -> Metrics:
    """How near the rows' losses are to those under the oracle; nothing where its result has none of the same rows."""
    others = np.array(oracle.row_scores.get("forget_nll", ()), dtype=np.float64)
    if len(others) != len(forget):
        return {}
    own = forget.nll_per_token
    return {
        "oracle_level_ks": metrics.loss_distance(own, others),
        "oracle_level_ks_chance": metrics.chance_distance(others, len(own)),
        "oracle_level_correlation": metrics.level_correlation(own, others),
        "oracle_level_error": metrics.level_error(own, others),
    }


def _token_losses(rows: ScoredRows) -> list[np.ndarray]:
    return [-logps for logps in rows.logps]
