"""When the losses of forget rows are said to be told from those of rows never seen."""

from dataclasses import replace

import pytest

from fixtures.report import evaluation, record
from hf_unlearn.results.verdict import never_seen, verdict

CHANCE = dict(level_ks=0.1, level_ks_chance=0.12, token_ks=0.03, token_ks_chance=0.04)
BLIND = dict(loss_auc=(0.52, 0.45, 0.58), loss_features_auc=(0.44, 0.38, 0.49))


def result(forget=200, holdout=200, **figures):
    """A result of the custom suite on so many rows."""
    counts = {"forget": {"count": forget, "sha256": None}, "holdout": {"count": holdout, "sha256": None}}
    return replace(evaluation("custom", **figures), rows=counts)


def test_nothing_tells_where_all_is_within_chance():
    told = never_seen({"after": result(**CHANCE, **BLIND)})
    assert told.told is False
    assert (
        told.words == "nothing measured tells the forget rows from rows never seen, on 200 forget and 200 unseen rows"
    )


@pytest.mark.parametrize(
    ("figures", "by"),
    [
        (dict(level_ks=0.13), "row NLLs from unseen rows (KS) 0.130"),
        (dict(token_ks=0.05), "token losses from unseen rows (KS) 0.050"),
        (dict(token_ks=float("nan")), "token losses from unseen rows (KS)"),
        (dict(loss_auc=(0.6, 0.51, 0.68)), "membership AUC (loss) 0.600"),
        (dict(loss_auc=(0.4, 0.31, 0.49)), "membership AUC (loss) 0.400"),  # they stand out as unlikely
        (dict(loss_features_auc=(0.6, 0.51, 0.68)), "membership AUC (classifier of losses) 0.600"),
    ],
)
def test_each_figure_beyond_chance_tells(figures, by):
    told = never_seen({"after": result(**(CHANCE | BLIND | figures))})
    assert told.told is True and by in told.words


def test_the_oracle_is_the_measure_where_there_is_one():
    """Unseen rows that are harder by nature: the oracle's AUC is .66, and its distances are above chance as well."""
    oracle = result(**CHANCE | dict(level_ks=0.2), loss_auc=(0.66, 0.6, 0.71), loss_features_auc=(0.7, 0.64, 0.75))
    like = CHANCE | dict(level_ks=0.19, loss_auc=(0.62, 0.56, 0.67), loss_features_auc=(0.68, 0.62, 0.73))
    assert never_seen({"after": result(**like), "oracle": oracle}).told is False
    assert never_seen({"after": result(**like)}).told is True
    guess = like | dict(loss_auc=(0.5, 0.44, 0.56))  # below the oracle's interval
    assert never_seen({"after": result(**guess), "oracle": oracle}).told is True
    off = like | dict(oracle_level_ks=0.11, oracle_level_ks_chance=0.1)
    told = never_seen({"after": result(**off), "oracle": oracle})
    assert told.told is True and "from the oracle's (KS) 0.110" in told.words


def test_few_rows_make_no_claim_but_still_tell():
    assert never_seen({"after": result(holdout=39, **CHANCE, **BLIND)}).told is None
    assert "39 unseen rows are too few" in never_seen({"after": result(holdout=39, **CHANCE, **BLIND)}).words
    assert never_seen({"after": result(holdout=39, **CHANCE, loss_auc=(0.9, 0.8, 1.0))}).told is True


def test_it_is_a_clause_of_the_verdict_and_absent_from_earlier_records():
    pair = dict(forget_accuracy=(0.0, 0.0, 0.02), retain_accuracy=(0.99, 0.97, 1.0))
    before = evaluation("custom", forget_accuracy=(1.0, 0.98, 1.0), retain_accuracy=(0.99, 0.97, 1.0))
    made = record(evaluations={"before": before, "after": result(**pair, **CHANCE, **BLIND)})
    assert "; nothing measured tells the forget rows from rows never seen, on 200" in verdict(made).sentence
    assert never_seen({"after": evaluation("custom", **pair)}) is None
    assert never_seen({}) is None
