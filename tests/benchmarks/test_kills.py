"""A few kills of the campaign in benchmarks/faults: inside of saves, in one process and in two; each run goes on."""

import pytest

from benchmarks.faults.kills import InSave, killed, uninterrupted
from benchmarks.faults.runs import METHODS, Setup

AVERAGING = METHODS["weight averaging"]


@pytest.mark.parametrize(
    ("setup", "aims"),
    [
        # Inside of the second checkpoint; while the final model is put in its place.
        (Setup("saliency", METHODS["saliency"]), [InSave(1, operation=50), InSave(5, operation=30)]),
        (Setup("weight averaging", AVERAGING, lora=True, ranks=2), [InSave(2, operation=60)]),
    ],
    ids=["one process", "two ranks"],
)
def test_a_run_that_is_killed_in_a_save_ends_as_the_one_that_is_not(tmp_path, setup, aims):
    expected = uninterrupted(setup, tmp_path / "whole").result
    for aim in aims:
        assert killed(setup, tmp_path / str(aim.save), aim, expected) == "equal, resumed"
