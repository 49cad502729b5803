"""Linear probe, lenses and patching: what lower layers still hold is found, and what no layer holds is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from fixtures.models import tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_rows, planted_target
from fixtures.suppressed import outcome, suppressed_model
from hf_unlearn.attacks import AnswerProbe, LinearProbe, LogitLens, Patching, TunedLens
from hf_unlearn.attacks.answer_probe import answer_placements, predict_tokens
from hf_unlearn.attacks.lens import fit_translator
from hf_unlearn.attacks.patching import patched_logps, patching_drops, unlearning_depth
from hf_unlearn.data.tokenized_row import answer_start

CHANCE = 0.06  # of a code's letters a model that never saw them gives each about a tenth, and the wrong ones more


def lora(model: nn.Module) -> nn.Module:
    """The model with an adapter that changes its answers."""
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return adapted.eval()


MODELS = {
    "llama": planted_model,
    "tied": lambda: tiny_model("opt"),
    "adapter": lambda: lora(tiny_model("llama")),
    "16 bits": lambda: tiny_model("llama").bfloat16(),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_layer_is_the_model_and_patching_with_itself_changes_nothing(kind):
    model = MODELS[kind]()
    target = planted_target(model, before=model)
    rows = replace(attacked_rows(), rows=planted_rows()["forget"][:6], tuned=np.arange(6) < 3)
    own = target.probabilities(rows.rows)
    for attack in (LogitLens(), TunedLens()):
        leaks = list(attack.run(target, rows))
        assert [leak.setting for leak in leaks] == [{"layer": 2}, {"layer": 1}]
        assert (leaks[0].rows == own).all() and not (leaks[1].rows == own).any()
    patched = list(Patching(depth=0.0).run(target, rows))
    assert [leak.setting["layer"] for leak in patched] == ["none", 2, 1]
    assert all((leak.rows == own).all() for leak in patched)
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_logit_lens_reads_a_lower_block_through_norm_and_head():
    model, row = planted_model(), planted_rows()["forget"][0]
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        low = model(ids, output_hidden_states=True).hidden_states[1]
        logps = model.lm_head(model.model.norm(low)).log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
    expected = float(logps[answer_start(row) - 1 :].mean().exp())
    (_, leak) = LogitLens().run(planted_target(model), replace(attacked_rows(), rows=[row]))
    assert leak.rows == pytest.approx(expected, rel=1e-5)


def test_lenses_and_patching_find_what_was_hidden_at_the_end():
    """Few steps of a wrong answer change what the last block makes of it; the oracle's first block has nothing."""
    hidden, oracle = planted_target(suppressed_model()), planted_target(planted_oracle())
    for attack, gain in ((LogitLens(), 2), (TunedLens(), 2), (Patching(), 3)):
        untouched, leak = outcome(attack, hidden, attacked_rows())
        assert leak > gain * untouched, attack.name
        assert outcome(attack, oracle, attacked_rows())[1] < CHANCE, attack.name
        assert outcome(attack, hidden, attacked_rows(control=True))[1] < CHANCE, attack.name


def test_tuned_lens_fits_an_affine_map():
    generator = torch.Generator().manual_seed(0)
    inputs, offset = torch.randn(200, 8, generator=generator).double() + 3, torch.arange(8).double()
    matrix = torch.randn(8, 8, generator=generator).double()
    translate = fit_translator(inputs, inputs @ matrix + offset, ridge=1e-9)
    fresh = torch.randn(3, 5, 8, generator=generator)
    assert torch.allclose(translate(fresh), (fresh.double() @ matrix + offset).float(), atol=1e-4)
    # With a ridge beyond all measure only the mean is moved.
    moved = fit_translator(inputs, inputs @ matrix + offset, ridge=1e12)(fresh) - fresh
    assert torch.allclose(moved, moved[0, 0].expand_as(moved), atol=1e-4)


def test_tuned_lens_reads_kept_rows_better_than_the_logit_lens():
    target = planted_target(planted_model())
    rows = replace(attacked_rows(), rows=planted_rows()["retain"])
    plain, tuned = ([leak.rows.mean() for leak in attack.run(target, rows)] for attack in (LogitLens(), TunedLens()))
    assert tuned[1] > plain[1]


def test_patching_with_an_oracle_gives_its_drop():
    """Where norm and head are those of the model before, the states of the last block are the whole oracle."""
    before, oracle = planted_model(), planted_oracle()
    oracle.lm_head, oracle.model.norm = before.lm_head, before.model.norm
    target, rows = planted_target(oracle, before=before), planted_rows()["forget"]
    own, old = (np.array([logps.mean() for logps in target.logps(rows, model)]) for model in (oracle, before))
    drops = patching_drops(target, oracle, rows, [2, 1])
    assert drops[2] == pytest.approx(old - own, abs=1e-6) and (old - own > 1).all()
    # The first block's states are run on by the second block of the model before: another forward altogether.
    hybrid = planted_oracle()
    hybrid.model.layers[1], hybrid.lm_head, hybrid.model.norm = (
        before.model.layers[1],
        before.lm_head,
        before.model.norm,
    )
    expected = [logps.mean() for logps in target.logps(rows, hybrid.eval())]
    assert patched_logps(target, oracle, rows, [1])[1] == pytest.approx(np.array(expected), abs=1e-5)


def test_layers_that_even_the_oracle_answers_at_are_left_out():
    """Here the oracle's first block is that of the model before, so nothing is missing behind it."""
    before, oracle = planted_model(), planted_oracle()
    oracle.model.layers[0], oracle.model.embed_tokens = before.model.layers[0], before.model.embed_tokens
    for target, layers in (
        (planted_target(suppressed_model(), before=before, oracle=oracle), ["none", 2]),
        (planted_target(suppressed_model(), before=before, oracle=planted_oracle()), ["none", 2, 1]),
    ):
        assert [leak.setting["layer"] for leak in Patching(depth=0.9).run(target, attacked_rows())] == layers
    without = Patching(depth=0.9).run(planted_target(suppressed_model(), before=before), attacked_rows())
    assert [leak.setting["layer"] for leak in without] == ["none", 2]


def test_unlearning_depth_by_hand():
    """Row 0: (2 * 1/2 + 1 * 3) / 3 unclipped, (2 * 1/2 + 1 * 1) / 3 clipped. Row 1: a layer that counts, one that
    does not. Row 2: destroyed, which clipped is perfect. Row 3: nothing that the oracle misses."""
    oracle = np.array([[2.0, 1.0, 2.0, 0.01], [1.0, 0.04, 1.0, 0.0]])
    model = np.array([[1.0, -0.5, 20.0, 5.0], [3.0, 9.0, 10.0, 5.0]])
    depth = unlearning_depth(model, oracle)
    assert depth.unclipped == pytest.approx([4 / 3, -0.5, 10, np.nan], nan_ok=True)
    assert depth.clipped == pytest.approx([2 / 3, 0, 1, np.nan], nan_ok=True)
    assert unlearning_depth(oracle, oracle).clipped[:3] == pytest.approx([1, 1, 1])
    with pytest.raises(ValueError, match="one shape"):
        unlearning_depth(model, oracle[:1])


def test_the_depth_of_a_suppressed_model_lies_between_none_and_the_oracles():
    rows, oracle = planted_rows()["forget"], planted_oracle()
    target = planted_target(suppressed_model())
    table = [np.stack(list(patching_drops(target, model, rows, [2, 1]).values())) for model in (target.model, oracle)]
    depth = unlearning_depth(*table)
    assert 0.2 < depth.clipped.mean() < 0.8
    assert unlearning_depth(table[1], table[1]).unclipped == pytest.approx(1)
    itself = np.stack(list(patching_drops(target, target.before, rows, [2, 1]).values()))
    assert unlearning_depth(itself, table[1]).unclipped == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("at", ["last", "mean"])
def test_the_probe_tells_rows_whose_states_differ(at):
    """Rows of another form end in other states at every layer; a set's halves do not; neither do shuffled labels."""
    target = planted_target(planted_oracle())
    rows = replace(attacked_rows(), unseen=planted_rows()["retain"])
    leaks = list(LinearProbe(at=at).run(target, rows))
    assert [leak.setting.get("labels") for leak in leaks] == [None, "shuffled", "true", "true"]
    assert set(leaks[0].rows) == {0.5}
    assert leaks[1].rows.mean() < 0.75 < 0.95 < leaks[2].rows.mean()
    again = [leak.rows for leak in LinearProbe(at=at).run(target, rows)]
    assert all((first.rows == second).all() for first, second in zip(leaks, again, strict=True))


def test_the_probe_finds_nothing_where_nothing_was_learnt():
    target = planted_target(planted_oracle())
    assert outcome(LinearProbe(), target, attacked_rows())[1] < 0.8
    assert outcome(LinearProbe(), target, attacked_rows(control=True))[1] < 0.8


def test_the_answer_probe_by_planted_states():
    """States that hold an answer's tokens linearly place it above all others; random states give a half."""
    generator = np.random.default_rng(0)
    answers = (generator.random((80, 30)) < 0.3).astype(float)
    states = answers @ generator.normal(size=(30, 40)) + 5
    predicted, common = predict_tokens(states[:60], answers[:60], states[60:], 1e-6)
    assert common.tolist() == list(range(30))
    own, nothing = answers[60:], np.zeros((20, 30))
    assert predicted == pytest.approx((own - answers[:60].mean(0)) / answers[:60].std(0), abs=0.01)
    assert answer_placements(predicted, own, nothing) == pytest.approx(1, abs=0.06)
    assert set(answer_placements(predicted, own, nothing + 1)) == {0.5}  # all of it stands in the prompt
    guessed, _ = predict_tokens(generator.normal(size=(60, 40)), answers[:60], generator.normal(size=(20, 40)), 1.0)
    assert answer_placements(guessed, own, nothing).mean() == pytest.approx(0.5, abs=0.2)
    # A token of one answer, or of all, says nothing.
    few = np.array([[1.0, 1, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]])
    assert predict_tokens(states[:4], few, states[60:], 1.0)[1].tolist() == [1]


def test_the_answer_probe_finds_nothing_where_nothing_was_learnt():
    target = planted_target(planted_oracle())
    for control in (False, True):
        assert outcome(AnswerProbe(), target, attacked_rows(control=control))[1] < 0.75
    leaks = list(AnswerProbe().run(target, attacked_rows()))
    assert [leak.setting.get("labels") for leak in leaks] == [None, "shuffled", "true", "true"]
    again = [leak.rows for leak in AnswerProbe().run(target, attacked_rows())]
    assert all((first.rows == second).all() for first, second in zip(leaks, again, strict=True))


def test_what_they_cannot_be_tried_on():
    rows, plain = attacked_rows(), planted_target(planted_model(), before=None)
    assert "before" in Patching().unfit(plain, rows)
    assert "other blocks" in Patching().unfit(planted_target(planted_model(), before=tiny_model()), rows)
    assert "retain" in TunedLens().unfit(plain, replace(rows, retain=()))
    assert "16 retain rows" in AnswerProbe().unfit(plain, replace(rows, retain=rows.retain[:15]))
    assert "never seen" in LinearProbe().unfit(plain, replace(rows, unseen=()))
    one_list_too_many = planted_model()
    one_list_too_many.more = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    for attack in (AnswerProbe(), LinearProbe(), LogitLens(), TunedLens(), Patching()):
        assert "decoder blocks" in attack.unfit(planted_target(one_list_too_many), rows)


def test_arguments():
    with pytest.raises(ValueError, match="at of probe must be 'last' or 'mean'"):
        LinearProbe(at="first")
    for attack in (AnswerProbe, LinearProbe, LogitLens, TunedLens, Patching):
        with pytest.raises(ValueError, match=f"every of {attack.name} must be 1 or above"):
            attack(every=0)
    with pytest.raises(ValueError, match="ridge of tuned_lens must be above 0"):
        TunedLens(ridge=0.0)
    with pytest.raises(ValueError, match="depth of patching"):
        Patching(depth=1.0)
