"""A suppressed model is asked in every way that the package and its users ask models, and says the same in each."""

import copy
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LogitsProcessorList

from fixtures.inference import OF_LOGITS, SPECS, fitted, logits_of, model_with, suppressed
from fixtures.models import tiny_tokenizer
from fixtures.planted import attacked_rows, planted_model, planted_rows, planted_target
from fixtures.tokenizer import EOS, PAD
from hf_unlearn.attacks import Relearn, RemoveSuppression, attack
from hf_unlearn.data.tokenized_row import answer_start, prompt_ids
from hf_unlearn.evaluation.questioner import Questioner
from hf_unlearn.model.fingerprints import hash_answers, hash_weights
from hf_unlearn.suppression import load_suppressor, remove_suppression, suppression_identity, unsuppressed

ASK = Questioner(tiny_tokenizer(), batch_size=5)


def some_rows():
    """Forget and retain rows of several lengths."""
    return [*planted_rows()["forget"][:4], *planted_rows()["retain"][:3]]


def greedy(model, prompt, count):
    """The likeliest tokens one after another, each from a forward over all that is there, without a cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", SPECS)
def test_scored_and_generated_alike_in_every_way(name):
    model, rows = model_with(name), some_rows()
    # Chunks of padded rows against plain forwards of single rows.
    for row, logps in zip(rows, ASK.logps(model, rows), strict=True):
        start, ids = answer_start(row), torch.tensor(row["input_ids"])
        expected = logits_of(model, ids)[start - 1 : -1].log_softmax(-1).gather(1, ids[start:, None])[:, 0]
        np.testing.assert_allclose(logps, expected.numpy(), atol=2e-4)
    # Prompts of several lengths in one batch, padded on the left, with a cache; one by one; without a cache.
    prompts = [prompt_ids(row) for row in rows] + [prompt_ids(rows[0])[:5]]
    answers = ASK.answers(model, prompts, max_new_tokens=6)
    assert answers == Questioner(tiny_tokenizer(), batch_size=1).answers(model, prompts, max_new_tokens=6)
    for prompt, answer in zip(prompts[1::3], answers[1::3], strict=True):
        told = greedy(model, prompt, 6)
        assert answer == told[: told.index(EOS) if EOS in told else 6]
    assert len(set(map(len, prompts))) > 1 and any(answers)


@pytest.mark.parametrize("name", SPECS)
def test_copied_saved_and_removed(name, tmp_path):
    plain, model = planted_model(), model_with(name)
    ids = planted_rows()["forget"][1]["input_ids"]
    before, after = logits_of(plain, ids), logits_of(model, ids)
    assert not torch.equal(before, after) and hash_weights(plain) == hash_weights(model)
    assert hash_answers(plain) == hash_weights(plain) != hash_answers(model)
    copied = copy.deepcopy(model)
    assert torch.equal(logits_of(copied, ids), after)
    with torch.no_grad():
        copied.model.norm.weight.zero_()  # its own weights, not those of the model it was copied from
    assert not torch.equal(logits_of(copied, ids), after) and torch.equal(logits_of(model, ids), after)
    suppressor = fitted(name).suppressor
    suppressor.save(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    loaded, again = load_suppressor(tmp_path), planted_model()
    handle = loaded.install(again)
    assert torch.equal(logits_of(again, ids), after)
    assert loaded.identity == suppressor.identity == suppression_identity(again)
    with unsuppressed(again):
        assert torch.equal(logits_of(again, ids), before)
    handle.remove()
    remove_suppression(copied)
    assert torch.equal(logits_of(again, ids), before) and "forward" not in vars(again)
    assert suppression_identity(copied) is None and suppression_identity(model) is not None
    with pytest.raises(ValueError, match="suppresses yet"):
        suppressor.install(model)


@pytest.mark.parametrize("name", OF_LOGITS[1:4])
def test_processor_does_what_the_installed_one_does(name):
    prompts = [prompt_ids(row) for row in some_rows()]
    expected = ASK.answers(model_with(name), prompts, max_new_tokens=5)
    processors = LogitsProcessorList([fitted(name).suppressor.logits_processor(PAD)])
    model, longest = planted_model(), max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    output = model.generate(
        ids, attention_mask=(ids != PAD).long(), logits_processor=processors, max_new_tokens=5, do_sample=False
    )
    told = [row[: row.index(EOS)] if EOS in row else row for row in output[:, longest:].tolist()]
    assert told == expected != ASK.answers(model, prompts, max_new_tokens=5)
    with pytest.raises(ValueError, match="a suppression of logits"):
        fitted("steering").suppressor.logits_processor()


@pytest.mark.parametrize("name", ["ngram", "in_context"])
def test_under_an_adapter(name):
    row = planted_rows()["forget"][0]
    adapted = get_peft_model(planted_model(), LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM"))
    report = suppressed(SPECS[name], adapted)
    assert torch.equal(logits_of(adapted, row["input_ids"]), logits_of(model_with(name), row["input_ids"]))
    told = greedy(adapted, prompt_ids(row), 4)
    assert ASK.answers(adapted, [prompt_ids(row)], max_new_tokens=4) == [told[: [*told, EOS].index(EOS)]]
    report.handle.remove()
    with pytest.raises(ValueError, match="merge it first"):  # a copy of the base's weights would know other things
        suppressed("uld", adapted)
    assert torch.equal(logits_of(adapted, row["input_ids"]), logits_of(planted_model(), row["input_ids"]))


def test_what_it_cannot_know_is_refused():
    model, ids = model_with("ngram"), torch.tensor([planted_rows()["forget"][0]["input_ids"][:6]])
    with pytest.raises(ValueError, match="input_ids, for a model whose answers are suppressed"):
        model(inputs_embeds=model.get_input_embeddings()(ids))
    with pytest.raises(ValueError, match="reordered"):
        model.generate(ids, attention_mask=torch.ones_like(ids), num_beams=2, max_new_tokens=3)
    cache = planted_model()(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="filled elsewhere"):
        model(ids[:, :1], past_key_values=cache, attention_mask=torch.ones(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match="an attention_mask"):
        model(ids, attention_mask=torch.ones(1, 1, 6, 6))
    long = torch.ones(1, 60, dtype=torch.long)
    with pytest.raises(ValueError, match="texts of at most"):
        model_with("in_context")(long)


def test_labels_are_scored_through_it():
    row = planted_rows()["forget"][0]
    batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
    for name in ("layers", "steering"):
        model = model_with(name)
        with torch.no_grad():
            loss, plain = float(model(**batch).loss), float(planted_model()(**batch).loss)
        assert loss == pytest.approx(float(ASK.nll(model, [row])[0]), abs=1e-4)
        assert loss > plain + 0.1


def test_attacked_with_and_without_what_has_the_weights():
    rows, target = attacked_rows(), planted_target(model_with("layers"))
    on, off = RemoveSuppression().run(target, rows)
    assert on.rows.mean() < 0.1 and off.rows.mean() > 0.9
    assert suppression_identity(target.model) is not None
    assert "nothing" in RemoveSuppression().unfit(planted_target(planted_model()), rows)
    # Who trains the weights calls them as they are.
    _, trained = Relearn(rates=(1e-6,), steps=1, every=1, sets=("forget",), adapters=("full",)).run(target, rows)
    assert np.nanmean(trained.rows) > 0.9


def test_a_report_of_attacks_has_it(tmp_path):
    sets = planted_rows()
    report = attack(
        model_with("ngram"),
        tiny_tokenizer(),
        {"forget": sets["forget"], "retain": sets["retain"]},
        ["sampling", "remove_suppression"],
        controls=sets["unseen"],
        batch_size=12,
        partial=tmp_path / "partial",
    )
    finding = report["remove_suppression"]
    assert finding.excess.low > 0.5 and report["sampling"].excess.value < finding.excess.value
    assert json.dumps(finding.subjects["model"].settings[1].setting) == '{"suppression": "off"}'
