"""What apply() does around any edit: checks, levels, what moved, tokens, and the way back where an edit fails."""

from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.edited import edited, planted_data
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import Edit, EditData
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.results.edit_report import Tried


@dataclass(frozen=True)
class Shrink(Edit):
    """Multiplies one matrix, and scores before and after."""

    factor: float = 0.5
    name = "shrink"
    formula = "W <- factor W"

    def run(self, model, data: EditData) -> list[Tried]:
        start = data.tried(model, {"factor": 1.0})
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(self.factor)
        return [start, data.tried(model, {"factor": self.factor})]


@dataclass(frozen=True)
class FromCheckpoint(Shrink):
    """Needs all there is."""

    name = "from_checkpoint"
    reads = frozenset({"forget", "retain"})
    needs_checkpoint = needs_before = True

    def run(self, model, data: EditData) -> list[Tried]:
        assert hash_weights(data.before) == hash_weights(model) and data.before is not model
        model.load_state_dict(data.checkpoint().state_dict())
        return [data.tried(data.checkpoint(), {})]


def test_reports_levels_what_moved_and_what_it_took():
    model = planted_model()
    report = edited(Shrink(), model)
    assert report.model is model and not report.merged
    assert report.edit.name == "shrink" and report.edit.arguments == {"factor": 0.5} and report.edit.own == "Shrink"
    assert report.before.forget < 0.1 < report.after.forget == pytest.approx(report.tried[1].forget_nll)
    assert report.tried[0].retain_nll == pytest.approx(report.before.retain)
    moved = {kind.layers: kind for kind in report.moved}
    # Two layers have an up_proj of 64 x 128; one of them moved, to half of what it was.
    weight = planted_model().model.layers[0].mlp.up_proj.weight, planted_model().model.layers[1].mlp.up_proj.weight
    share = 0.5 * weight[0].norm() / torch.stack([one.norm() for one in weight]).norm()
    assert report.moved[0].layers == "up_proj"
    assert moved["up_proj"].weights == 2 * 64 * 128 and moved["up_proj"].changed == 0.5
    assert moved["up_proj"].distance == pytest.approx(share.item(), rel=1e-5) and moved["q_proj"].distance == 0
    # Forget and retain rows are read four times, the unseen ones (the half for fitting) twice and for the level.
    sets = planted_rows()
    read = {name: sum(len(row["input_ids"]) for row in rows) for name, rows in sets.items()}
    unseen = report.tokens - 4 * (read["forget"] + read["retain"])
    assert 0 < unseen < 2 * read["unseen"] and report.rows["forget"] == 24
    assert 3 < report.level < 8 and report.weights_before != report.weights_after == hash_weights(model)
    assert report.to_dict()["edit"]["name"] == "shrink" and "model" not in report.to_dict()


def test_merges_an_adapter_first():
    adapted = get_peft_model(planted_model(), LoraConfig(r=2, target_modules=["up_proj"]))
    report = edited(Shrink(), adapted)
    assert report.merged and type(report.model).__name__ == "LlamaForCausalLM"


def test_checkpoint_and_before_are_supplied():
    report = edited(FromCheckpoint(), checkpoint=planted_model())
    assert report.weights_before == report.weights_after
    with pytest.raises(ValueError, match="Expected checkpoint, for the edit from_checkpoint"):
        edited(FromCheckpoint())


@pytest.mark.parametrize("factor", [float("inf"), -float("inf")])
def test_a_failed_edit_leaves_the_weights(factor):
    model = planted_model()
    before = hash_weights(model)
    with pytest.raises(ValueError, match="NaN or infinity in model"):
        edited(Shrink(factor=factor), model)
    assert hash_weights(model) == before


def test_refuses_what_it_cannot_edit():
    data = planted_data()
    with pytest.raises(ValueError, match=r"data\['retain'\], for the edit from_checkpoint"):
        edited(FromCheckpoint(), data={"forget": data["forget"]})
    with pytest.raises(ValueError, match="no row both in the forget and in the retain set"):
        edited(Shrink(), data=data | {"retain": data["forget"]})
    with pytest.raises(ValueError, match="no forget rows"):
        edited(Shrink(), data={"retain": data["retain"]})
    with pytest.raises(ValueError, match="edit must be a known name"):
        edited("shrnik")
    with pytest.raises(ValueError, match="level must be"):
        edited(Shrink(), level=-1.0)
