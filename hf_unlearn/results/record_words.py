"""What cards and reports say of how a run knew its reference and its levels."""

from .record_parts import LevelQuality

# Where levels come from, as `LevelQuality.source` holds it -> its words on the card and in the report.
LEVEL_WORDS = {
    "ngram": "estimated by a 4-gram counted on the retain rows",
    "holdout": "quantiles of what unseen rows get, dealt out to the forget rows",
    "model": "estimated by another language model that was named as one that never saw the rows",
    "given": "given row by row",
}
# What was fitted to single tokens before the mean of a row was taken; nothing where they stayed as they are.
FIT_WORDS = {
    "curve": ", its numbers of single tokens through a monotone curve",
    "trees": " and 1-, 2- and 6-grams, single tokens through boosted trees",
}
# Reference mode, as `RunRecord.reference` holds it -> its words on the card and in the report.
REFERENCE_WORDS = {
    "none": "no loss compares with the model before unlearning",
    "precomputed": "log-probs of the model before unlearning, computed once before the first step",
    "adapter": "the model before unlearning, as the same weights with the adapter as it was before training",
    "copy": "the model before unlearning, as a frozen copy",
    "cached": "the model before unlearning, from hidden states that were computed once before the first step",
    "topk": "the likeliest tokens of the model before unlearning, computed once before the first step (approximate)",
}


def reference_words(reference: str) -> str:
    """How the losses knew the model before unlearning; "" for modes that have no words, from a later version."""
    return "; ".join(REFERENCE_WORDS[mode] for mode in reference.split(" + ") if mode in REFERENCE_WORDS)


def level_words(levels: LevelQuality, *, by_task: bool, every: int | None = None) -> str:
    """Where the levels of a run come from, how well they are known, and which unseen rows are left for measuring.

    Args:
        levels: of the run.
        by_task: whether a task of this package has run it, whose suites measure the other half.
        every: so many steps after which they were estimated again (`recalibrate_steps`), or None.
    """
    words = LEVEL_WORDS.get(levels.source, levels.source) + FIT_WORDS.get(levels.fit or "", "")
    words += f"; mean {levels.mean:.2f} nats per token"
    words += f" before the first step, estimated again every {every} steps" if every else ""
    if not levels.calibration_rows:
        return f"{words}."
    words += f"; calibrated on {levels.calibration_rows:,} holdout rows"
    if levels.spearman is not None and levels.error is not None:
        words += (
            f", of which it predicts the NLL with a rank correlation of {levels.spearman:.2f} and a mean error of "
            f"{levels.error:.2f} nats per token (five-fold cross-validation)"
        )
    measured = "suites measure unseen rows on the other half" if by_task else "the other half is left for measuring"
    return f"{words}. They are one half of the holdout set; {measured}."
