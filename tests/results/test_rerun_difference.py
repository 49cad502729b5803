"""A run beside the same run done again: weights, figures with their intervals, and what else is not the same."""

import torch
from safetensors.torch import save_file

from fixtures.report import evaluation, record
from hf_unlearn.model.weight_files import weight_file_hashes
from hf_unlearn.results.lineage import Lineage
from hf_unlearn.results.rerun_difference import FigureDifference, RerunDifference, compare_rerun, difference_words


def saved(folder, weights, *, changes=(), shards=1, **metrics):
    """A run's folder with chosen weights and figures."""
    folder.mkdir(parents=True)
    names = sorted(weights)
    for shard in range(shards):
        save_file({name: weights[name] for name in names[shard::shards]}, folder / f"model-{shard}.safetensors")
    lineage = Lineage(code="1", weights_in={"model.safetensors": "a" * 64}, weights_out=weight_file_hashes(folder))
    made = record(evaluations={"after": evaluation(**metrics)}, lineage=lineage, versions={"torch": "1"})
    for name, value in changes:
        setattr(made, name, value)
    made.save(folder)
    return folder


WEIGHTS = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
FIGURES = {"forget_nll": (2.0, 1.5, 2.5), "efficacy": 0.5, "none": float("nan")}


def test_equal_weights_are_the_same_whatever_their_files(tmp_path):
    first = saved(tmp_path / "first", WEIGHTS, **FIGURES)
    for name, shards in (("same", 1), ("shards", 2)):
        again = compare_rerun(first, saved(tmp_path / name, WEIGHTS, shards=shards, **FIGURES))
        assert again.weights.equal and again.same and again.differences == {} and again.outside == []
    assert "equal bit for bit" in difference_words(again)


def test_other_weights_are_the_same_where_the_figures_are_within(tmp_path):
    first = saved(tmp_path / "first", WEIGHTS, **FIGURES)
    moved = WEIGHTS | {"b": torch.tensor([[1.0, 1.0], [1.0, 1.5]])}
    near = compare_rerun(first, saved(tmp_path / "near", moved, **FIGURES | {"forget_nll": (2.4, 2.2, 2.6)}))
    assert (near.weights.largest, near.weights.mean, near.weights.tensor) == (0.5, 0.5 / 8, "b")
    assert near.same and not near.weights.equal and "within its intervals" in difference_words(near)
    assert near.figures[0] == FigureDifference("after", "forget_nll", 2.0, 2.4, 1.5, 2.5, True)
    far = compare_rerun(first, saved(tmp_path / "far", moved, **FIGURES | {"forget_nll": (2.8, 2.6, 3.0)}))
    assert not far.same and [figure.metric for figure in far.outside] == ["forget_nll"]
    assert "OUTSIDE" in difference_words(far)
    unmeasured = compare_rerun(first, saved(tmp_path / "not", moved, changes=[("evaluations", {})]))
    assert not unmeasured.same and unmeasured.missing == ["after"]


def test_other_tensors_nan_and_another_base(tmp_path):
    first = saved(tmp_path / "first", WEIGHTS, **FIGURES)
    other = compare_rerun(first, saved(tmp_path / "other", {"a": torch.zeros(3)}))
    assert (other.weights.equal, other.weights.largest) == (False, None)
    nan = compare_rerun(first, saved(tmp_path / "nan", WEIGHTS | {"a": torch.full((4,), torch.nan)}))
    assert not nan.weights.equal and not nan.same
    changed = [("versions", {"torch": "2"}), ("seed", 4)]
    lineage = Lineage(code="2", weights_in={"model.safetensors": "b" * 64}, weights_out=weight_file_hashes(first))
    base = compare_rerun(first, saved(tmp_path / "base", WEIGHTS, changes=[*changed, ("lineage", lineage)]))
    assert base.weights.equal and not base.same
    assert set(base.differences) == {"version of torch", "seed", "code", "weights in"}


def test_a_suppressor_is_compared_with_the_weights_that_it_leaves_alone(tmp_path):
    folders = [saved(tmp_path / name, WEIGHTS, **FIGURES) for name in ("first", "same", "other")]
    for folder, text in zip(folders, ("{}", "{}", "[]"), strict=True):
        (folder / "suppression").mkdir()
        (folder / "suppression" / "suppressor.json").write_text(text)
    same, other = (compare_rerun(folders[0], folder) for folder in folders[1:])
    assert same.weights.equal and not other.weights.equal
    assert "suppressor's files are not" in difference_words(other)
    assert RerunDifference(same.weights).same
