"""What a run reads of the datasets that it is given, made in one call: training, evaluation, longest row, pairs."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.models import tiny_tokenizer, train_sets
from hf_unlearn import UnlearningConfig
from hf_unlearn.data.pairing import ForgetRetainDataset, ForgetRetainStream
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.training.methods import Methods
from hf_unlearn.training.objective import build_objective
from hf_unlearn.training.train_sets import RunSets, build_train_sets


def built(folder: Path, train: Any, evaluation: Any = None, **arguments: Any) -> RunSets:
    args = UnlearningConfig(output_dir=str(folder), report_to="none", **arguments)
    methods = Methods.resolve(args)
    options = RowOptions(tiny_tokenizer(), args.max_length, None, None)
    return build_train_sets(train, evaluation, build_objective(methods, args), methods.wrappers, args, options)


def lengths(rows: Any) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


def mismatches_of(sets: RunSets, epoch: int) -> list[dict[str, Any]]:
    sets.paired.set_epoch(epoch)
    return [row for item in sets.paired for row in item["mismatch"]]


def test_all_sets_of_a_run_come_out_of_one_call(tmp_path):
    given = train_sets()
    sets = built(tmp_path, given, {"retain": given["retain"]}, forget_nll_bound="holdout")
    assert isinstance(sets.paired, ForgetRetainDataset)
    assert sets.paired.forget is sets.train.forget and sets.paired.retain is sets.train.retain
    assert len(sets.train.forget) == len(given["forget"]) and len(sets.train.holdout) == len(given["holdout"])
    assert list(sets.evaluation) == ["retain"] and sets.evaluation["retain"][:] == sets.train.retain[:]
    of_all = [sets.train.forget, sets.train.retain, sets.train.holdout]
    assert sets.longest == max(length for rows in of_all for length in lengths(rows))


def test_a_run_that_only_evaluates_has_no_pairs(tmp_path):
    rows = train_sets()["holdout"]
    sets = built(tmp_path, None, rows)
    assert sets.train is None and sets.paired is None
    assert sets.longest == max(lengths(sets.evaluation)) > 0
    assert built(tmp_path, None).longest == 0 and built(tmp_path, None).evaluation is None


def test_sets_that_nothing_reads_are_not_tokenised(tmp_path):
    sets = built(tmp_path, train_sets(), retain_loss="none")
    assert sets.train.retain is None and sets.train.holdout is None


def test_the_longest_row_may_be_one_that_is_composed(tmp_path):
    forget = [{"prompt": "a" * (10 + i), "completion": "b"} for i in range(8)]
    retain = [{"prompt": "c", "completion": "d" * (10 + i)} for i in range(8)]
    sets = built(tmp_path, {"forget": forget, "retain": retain}, forget_loss="random_mismatch", max_length=64)
    composed = [len(row["input_ids"]) for epoch in range(20) for row in mismatches_of(sets, epoch)]
    assert max(composed) == sets.longest > max(lengths(sets.train.forget) + lengths(sets.train.retain))
    cut = built(tmp_path, {"forget": forget, "retain": retain}, forget_loss="random_mismatch", max_length=20)
    assert cut.longest == 20


def test_streams_are_paired_as_streams(tmp_path):
    streams = {name: rows.to_iterable_dataset() for name, rows in train_sets().items()}
    sets = built(tmp_path, streams, max_length=48)
    assert isinstance(sets.paired, ForgetRetainStream) and sets.longest == 0  # until they are read


def test_a_row_in_two_sets_is_refused_before_any_pairing(tmp_path):
    given = train_sets()
    with pytest.raises(ValueError, match="no row both in the forget and in the retain set"):
        built(tmp_path, {"forget": given["forget"], "retain": given["forget"]})
