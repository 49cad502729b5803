"""An edit off the retain keys: where these leave directions free, nothing changes for the retain rows."""

import pytest
import torch

from fixtures.edited import edited, planted_data, ragged
from fixtures.models import tiny_tokenizer
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import EditData, NullSpace
from hf_unlearn.edits.matrices import chosen_matrices
from hf_unlearn.edits.null_space import key_moments, unused
from hf_unlearn.evaluation.questioner import Questioner


def _logits(model, rows):
    with torch.no_grad():
        return torch.cat([model(torch.tensor([row["input_ids"]])).logits[0] for row in rows])


def test_retain_rows_keep_their_logits_where_keys_leave_directions_free():
    # Three rows have fewer positions than a layer has inputs. In fp64, eigenvalues are zero or they are not.
    data = planted_data() | {"retain": planted_rows()["retain"][:3]}
    before = planted_model().double()
    kept, lost = planted_model().double(), planted_model().double()
    report = edited(NullSpace(threshold=1e-10), kept, data, level=3.0)
    assert report.after.forget == pytest.approx(3, abs=0.1) and report.before.forget < 0.1
    torch.testing.assert_close(_logits(kept, data["retain"]), _logits(before, data["retain"]), rtol=0, atol=1e-3)
    assert (_logits(kept, data["forget"]) - _logits(before, data["forget"])).abs().max() > 1
    # With every direction free it is plain ascent.
    report = edited(NullSpace(threshold=1e10), lost, data, level=3.0)
    assert report.after.forget == pytest.approx(3, abs=0.1)
    assert (_logits(lost, data["retain"]) - _logits(before, data["retain"])).abs().max() > 1
    # With none there is nothing to do.
    held = edited(
        NullSpace(threshold=1e-10, relative_to="absolute", layers="down_proj"), data=planted_data(), level=3.0
    )
    assert held.after == held.before and held.weights_after == held.weights_before and len(held.tried) == 1


def test_outputs_for_keys_change_within_the_threshold():
    torch.manual_seed(0)
    keys = torch.randn(200, 10, dtype=torch.float64) * torch.logspace(0, -3, 10, dtype=torch.float64)
    moment = keys.T @ keys / len(keys)
    update = torch.randn(6, 10, dtype=torch.float64)
    for threshold, relative_to in ((1e-2, "mean"), (1e-3, "absolute"), (0.5, "mean")):
        projector = unused(moment, threshold, relative_to)
        limit = threshold * (moment.trace() / 10 if relative_to == "mean" else 1)
        rank = int((torch.linalg.eigvalsh(moment) < limit).sum())
        assert 0 < rank < 10 and float(projector.trace()) == pytest.approx(rank)
        torch.testing.assert_close(projector @ projector, projector)
        change = (keys @ (update @ projector).T).square().sum(1).mean()
        assert change <= limit * (update @ projector).square().sum() < (keys @ update.T).square().sum(1).mean()


def test_keys_are_those_of_all_tokens_and_no_padding():
    model, rows = planted_model().double(), ragged(planted_rows()["retain"][:5])
    moments = []
    for size in (1, 5):
        data = EditData(Questioner(tiny_tokenizer(), batch_size=size), rows)
        moments.append(key_moments(model, data, chosen_matrices(model, "layers.0.*q_proj"), rows))
    with torch.no_grad():
        first = model.model.layers[0]
        keys = torch.cat(
            [first.input_layernorm(model.model.embed_tokens(torch.tensor(row["input_ids"]))) for row in rows]
        )
    for moment in moments:
        torch.testing.assert_close(moment["model.layers.0.self_attn.q_proj"], keys.T @ keys / len(keys))


def test_is_far_gentler_to_retain_rows_than_plain_ascent():
    report, plain = (edited(NullSpace(threshold=threshold)) for threshold in (1e-2, 1e10))
    assert report.after.forget == pytest.approx(report.level, abs=0.25) == plain.after.forget
    assert report.after.retain < 0.6 and report.after.retain < 0.3 * plain.after.retain


def test_checks_its_arguments():
    with pytest.raises(ValueError, match="threshold of null_space must be above 0"):
        NullSpace(threshold=0.0)
    with pytest.raises(ValueError, match="relative_to of null_space"):
        NullSpace(relative_to="max")
    with pytest.raises(ValueError, match="steps of null_space"):
        NullSpace(steps=0)
    with pytest.raises(ValueError, match="retain_rows of null_space"):
        NullSpace(retain_rows=0)
