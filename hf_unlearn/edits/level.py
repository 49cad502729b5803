"""The level of an edit: the mean NLL per token that a model without the forget rows would give them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..data.token_arrays import token_arrays
from ..data.tokenized_row import TokenizedRow
from ..errors import require_choice, require_range
from ..evaluation.questioner import Questioner
from ..model.output_head import output_head
from ..model.score_rows import RowLogps
from ..training.levels.estimate import estimate_levels
from ..training.levels.ngram import NGram
from ..training.levels.ngram_columns import ORDERS
from ..training.levels.profile import Profile, answer_lengths, ngram_logps, ngram_profile
from ..training.levels.setting import HOLDOUT, NGRAM


def known_level(
    given: float | str | None,
    model: Any,
    questioner: Questioner,
    forget: Sequence[TokenizedRow],
    retain: Sequence[TokenizedRow],
    unseen: Sequence[TokenizedRow],
) -> float | None:
    """The level as a number, nats; None where there are no unseen rows and no number is given.

    Args:
        given: as `apply` takes it: a number, "ngram", "holdout" or None.
        model: before unlearning.
        questioner: scores the unseen rows.
        forget: tokenised.
        retain: tokenised, that the n-grams are counted on.
        unseen: tokenised rows like the forget rows that the model has never seen.

    Raises:
        ValueError: another word, or a number that is not above 0.
    """
    if given is None or isinstance(given, str):
        require_choice("level", given or NGRAM, (NGRAM, HOLDOUT))
        source = given or (NGRAM if retain else HOLDOUT)
        return _mean_level(source, model, questioner, forget, retain, unseen) if unseen else None
    require_range("level", given, above=0)
    return float(given)


def _mean_level(
    source: str,
    model: Any,
    questioner: Questioner,
    forget: Sequence[TokenizedRow],
    retain: Sequence[TokenizedRow],
    unseen: Sequence[TokenizedRow],
) -> float:
    """The mean of the levels that a source gives the forget rows, nats."""
    scores = questioner.scores(model, unseen)
    if source == NGRAM:
        vocabulary = output_head(model).vocabulary
        longest = NGram.count([ids for ids, _ in token_arrays(retain)], vocabulary, max(ORDERS))
        profiles = [ngram_profile(partial(_under, longest, rows), rows) for rows in (forget, unseen)]
    else:
        profiles = [Profile.flat(answer_lengths(rows)) for rows in (forget, unseen)]
    return estimate_levels(source, profiles[0], profiles[1], scores, forget, tokens=False).quality.mean


def _under(longest: NGram, rows: Sequence[TokenizedRow], order: int) -> RowLogps:
    """Log-probs of answer tokens under a shorter n-gram of the same counts."""
    return ngram_logps(longest.shortened(order), rows)
