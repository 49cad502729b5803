"""The level of an edit: the mean NLL per token that a model without the forget rows would give them."""

from collections.abc import Sequence
from typing import Any

from ..data.tokenized_row import TokenizedRow
from ..evaluation.questioner import Questioner
from ..model.output_head import output_head
from ..training.levels.estimate import estimate_levels
from ..training.levels.profile import Profile, answer_lengths, ngram_logps
from ..training.levels.setting import HOLDOUT, NGRAM


def mean_level(
    model: Any,
    questioner: Questioner,
    forget: Sequence[TokenizedRow],
    retain: Sequence[TokenizedRow],
    unseen: Sequence[TokenizedRow],
) -> float:
    """The mean of the levels that `levels="ngram"` gives the forget rows ("holdout" without retain rows), nats.

    Args:
        model: before unlearning.
        questioner: scores the unseen rows.
        forget: tokenised.
        retain: tokenised, that the 4-gram is counted on.
        unseen: tokenised rows like the forget rows that the model has never seen.
    """
    scores = questioner.scores(model, unseen)
    if len(retain):
        vocabulary = output_head(model).vocabulary
        profiles = [Profile.of_tokens(ngram_logps(retain, rows, vocabulary)) for rows in (forget, unseen)]
    else:
        profiles = [Profile.flat(answer_lengths(rows)) for rows in (forget, unseen)]
    source = NGRAM if len(retain) else HOLDOUT
    return estimate_levels(source, profiles[0], profiles[1], scores, forget, tokens=False).quality.mean
