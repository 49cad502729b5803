"""What the metrics of RWKU are called and how they are read, and the forms of its adversarial probes. No formulas."""

from .description import PERCENT, MetricDescription

# The forms of the adversarial probes, as metrics name them.
FORMS = (
    "prefix_injection",
    "affirmative_suffix",
    "role_playing",
    "multiple_choice",
    "reverse_query",
    "synonym_manipulation",
    "background_hint",
    "in_context_learning",
    "cross_lingual",
)
# Set -> label, and whether its answers are to be kept.
_SETS = {
    "forget_level1": ("forget blanks filled", False),
    "forget_level2": ("questions about them answered", False),
    "forget_level3": ("adversarial probes answered", False),
    "neighbor_level1": ("neighbours' blanks filled", True),
    "neighbor_level2": ("neighbours' questions answered", True),
}
_ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
_RECALL = "ROUGE-L recall of the expected answers"


def _of(name: str, label: str, kept: bool | None, about: str, unit: str = "") -> MetricDescription:
    return MetricDescription(name, label, about, unit, greater_is_better=kept, rows="retain" if kept else "forget")


def _membership(which: str) -> tuple[MetricDescription, ...]:
    """Of a set of members: its NLL, and the published mean scores."""
    kept = which == "retain"
    nll = MetricDescription(
        f"mia_{which}_nll",
        f"NLL of {which} texts that were trained on",
        "mean nats per token",
        "nats per token",
        greater_is_better=not kept,
        rows=which,
    )
    scores = (
        MetricDescription(
            f"published_mia_{which}_{score}",
            f"membership score {score.replace('_plus_plus', '++').replace('_', '-')} of {which} texts, as published",
            "mean over the texts, higher is more like a member",
            format=".3g",
            greater_is_better=kept,
            rows=which,
        )
        for score in ("loss", "zlib", "min_k_plus_plus")
    )
    return nll, *scores


def _utility() -> tuple[MetricDescription, ...]:
    """What was kept of general knowledge, reasoning, truthfulness and facts, and the same as published."""
    described = []
    for name, published, label, about in (
        ("general_accuracy", "general", "MMLU accuracy", "share of questions whose right letter is the likeliest"),
        ("reason_exact_match", "reason", "BBH exact match", "share of replies whose conclusion is the expected one"),
        ("truthfulness_mc1", "truthfulness_mc1", "TruthfulQA MC1", "share whose one right answer is the likeliest"),
        ("truthfulness_mc2", "truthfulness_mc2", "TruthfulQA MC2", "right answers' part of all answers' probability"),
        ("factuality_f1", "factuality_f1", "TriviaQA F1", "F1 of the words of the answer and the nearest alias"),
        (
            "factuality_exact_match",
            "factuality_exact_match",
            "TriviaQA exact match",
            "share of answers that are an alias",
        ),
    ):
        described += [
            MetricDescription(f"utility_{name}", label, about, "share", PERCENT, True, "retain"),
            MetricDescription(
                f"published_utility_{published}",
                f"{label}, as published",
                "as the published code of RWKU computes it",
                "share",
                PERCENT,
                True,
                "retain",
            ),
        ]
    return tuple(described)


DESCRIPTIONS = (
    *(_of(f"{name}_rouge", label, kept, _RECALL) for name, (label, kept) in _SETS.items()),
    *(
        _of(f"{name}_judged", f"{label} (judge)", kept, "share of answers that the judge flags", "share")
        for name, (label, kept) in _SETS.items()
    ),
    *(
        _of(f"published_{name}", f"{label}, as published", kept, "as the published code of RWKU computes it")
        for name, (label, kept) in _SETS.items()
    ),
    *(_of(f"forget_level3_{form}_rouge", f"adversarial: {form.replace('_', ' ')}", False, _RECALL) for form in FORMS),
    _of("forget_level3_mean_rouge", "adversarial, mean of the forms", False, f"{_RECALL}, each form counted alike"),
    _of("forget_level3_worst_rouge", "adversarial, worst form", False, f"{_RECALL}, the highest of the forms"),
    *(
        _of(
            f"mia_{attack}_auc",
            f"forget against retain texts, AUC ({attack.replace('_plus_plus', '++').replace('_', '-')})",
            None,
            "texts to forget told from texts to keep, both trained on; 0.5 is a guess, below it the former look new",
        )
        for attack in _ATTACKS
    ),
    *_membership("forget"),
    *_membership("retain"),
    *_utility(),
)
