"""Metrics: functions of arrays and generated answers that return a value with n and a 95% interval. No torch."""

from .agreement import Agreement, agreement_accuracy, cohen_kappa
from .choices import (
    above_chance,
    calibrated,
    choice_accuracy,
    choice_credits,
    credit_mean,
    over_orders,
    top_letter_share,
)
from .description import MetricDescription
from .entropy import n_gram_entropies, n_gram_entropy
from .evaluate_metric import evaluate_metric
from .fluency import broken_rate, distinct_n, empty_rate, repetition_rate
from .harm import efficacy, harmful_rate
from .judged import MOST_UNJUDGED, judge_errors, judged_bounds, judged_rate, worst_over_phrasings
from .likelihood import (
    answer_probability,
    exact_memorization,
    exact_memorizations,
    extraction_strength,
    extraction_strengths,
    option_probability,
    perplexity,
    token_nll,
)
from .membership import (
    gradient_norm_scores,
    loss_scores,
    membership_auc,
    min_k_plus_plus_scores,
    min_k_scores,
    privleak,
    reference_scores,
    relative_difference,
    tpr_at_fpr,
    zlib_scores,
)
from .overlap import (
    bleu,
    by_length,
    common_substring,
    longest_common_substrings,
    rouge_f1,
    rouge_f1s,
    rouge_recall,
    rouge_recalls,
    rouge_recalls_of,
)
from .refusal import is_refusal, refusal_rate
from .registry import METRIC_DESCRIPTIONS, METRICS, MetricFunction
from .result import MetricResult, bootstrap, mean, proportion
from .segmentation import words
from .sentence_rouge import sentence_rouge_recalls
from .short_answers import answer_f1s, answer_matches, conclusion, conclusion_matches, joined_words, trivia_words
from .text import accuracy, is_empty, is_repetitive, is_same_answer, starts_like
from .tofu_log import tofu_aggregates
from .truth import (
    UTILITY_COMPONENTS,
    forget_quality,
    ks_distance,
    model_utility,
    truth_ratio,
    truth_ratios,
)
from .truthful import mc1_credits, mc2_shares
from .unseen import (
    chance_distance,
    level_correlation,
    level_error,
    loss_classifier_auc,
    loss_distance,
    loss_features,
)

__all__ = [
    "METRICS",
    "METRIC_DESCRIPTIONS",
    "MOST_UNJUDGED",
    "UTILITY_COMPONENTS",
    "Agreement",
    "MetricDescription",
    "MetricFunction",
    "MetricResult",
    "above_chance",
    "accuracy",
    "agreement_accuracy",
    "answer_f1s",
    "answer_matches",
    "answer_probability",
    "bleu",
    "bootstrap",
    "broken_rate",
    "by_length",
    "calibrated",
    "chance_distance",
    "choice_accuracy",
    "choice_credits",
    "cohen_kappa",
    "common_substring",
    "conclusion",
    "conclusion_matches",
    "credit_mean",
    "distinct_n",
    "efficacy",
    "empty_rate",
    "evaluate_metric",
    "exact_memorization",
    "exact_memorizations",
    "extraction_strength",
    "extraction_strengths",
    "forget_quality",
    "gradient_norm_scores",
    "harmful_rate",
    "is_empty",
    "is_refusal",
    "is_repetitive",
    "is_same_answer",
    "joined_words",
    "judge_errors",
    "judged_bounds",
    "judged_rate",
    "ks_distance",
    "level_correlation",
    "level_error",
    "longest_common_substrings",
    "loss_classifier_auc",
    "loss_distance",
    "loss_features",
    "loss_scores",
    "mc1_credits",
    "mc2_shares",
    "mean",
    "membership_auc",
    "min_k_plus_plus_scores",
    "min_k_scores",
    "model_utility",
    "n_gram_entropies",
    "n_gram_entropy",
    "option_probability",
    "over_orders",
    "perplexity",
    "privleak",
    "proportion",
    "reference_scores",
    "refusal_rate",
    "relative_difference",
    "repetition_rate",
    "rouge_f1",
    "rouge_f1s",
    "rouge_recall",
    "rouge_recalls",
    "rouge_recalls_of",
    "sentence_rouge_recalls",
    "starts_like",
    "tofu_aggregates",
    "token_nll",
    "top_letter_share",
    "tpr_at_fpr",
    "trivia_words",
    "truth_ratio",
    "truth_ratios",
    "words",
    "worst_over_phrasings",
    "zlib_scores",
]
