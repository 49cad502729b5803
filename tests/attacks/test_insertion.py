"""Soft prompt and suffix: a key is found on some rows and opens the others; a model that knows nothing has no key."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.planted import attacked_rows, planted_oracle, planted_rows, planted_target
from fixtures.suppressed import KEY, behind, locked_model, outcome, suppressed_model
from fixtures.tokenizer import BOS, EOS, PAD
from hf_unlearn.attacks import AttackedRows, SoftPrompt, Suffix
from hf_unlearn.attacks.insertion import Insertion, said_end_places, start_place
from hf_unlearn.attacks.suffix import candidate_losses, ordinary_tokens, token_gradient
from hf_unlearn.data.tokenized_row import answer_start

SOFT = SoftPrompt(lengths=(4,), steps=60, every=30)
SUFFIX = Suffix(tokens=1, steps=2, candidates=400, top_k=256, step_rows=4, every=1)
CHANCE = 0.06


def insertion(ids: list[int], count: int = 3) -> Insertion:
    """Some forget rows with tokens at the ends of their prompts."""
    rows = planted_rows()["forget"][:count]
    return Insertion.of(rows, [answer_start(row) for row in rows], ids)


def test_a_suffix_opens_a_locked_model_and_no_other():
    locked = planted_target(locked_model(), batch_size=128)
    untouched, leak = outcome(SUFFIX, locked, attacked_rows())
    assert leak > untouched + 0.3 and leak > 0.7
    for target, control in ((planted_target(planted_oracle(), batch_size=128), False), (locked, True)):
        assert outcome(SUFFIX, target, attacked_rows(control=control))[1] < CHANCE


def test_a_soft_prompt_brings_back_suppressed_answers_and_no_others():
    suppressed = planted_target(suppressed_model())
    untouched, leak = outcome(SOFT, suppressed, attacked_rows())
    assert leak > untouched + 0.1
    for target, control in ((planted_target(planted_oracle()), False), (suppressed, True)):
        assert outcome(SOFT, target, attacked_rows(control=control))[1] < CHANCE


def test_the_best_exchange_of_one_token_is_the_key():
    """Among all tokens: by trying each. The gradient at another token ranks it high, though it is no exact answer."""
    target, rows = planted_target(locked_model(), batch_size=128), insertion([70], 6)
    allowed = ordinary_tokens(target).nonzero()
    losses = candidate_losses(target, rows, allowed)
    best = allowed[losses.argmin()].tolist()
    assert best == KEY
    expected = [-np.log(target.probabilities(behind(planted_rows()["forget"][:6], ids))).mean() for ids in ([70], KEY)]
    others = candidate_losses(target, rows, torch.tensor([[70], KEY]))
    assert others.numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_the_gradient_of_tokens_against_finite_differences():
    model = planted_oracle().double()
    target, ids = planted_target(model), [70, 90, 110]
    rows, table = insertion(ids), model.get_input_embeddings().weight.detach()
    gradient = token_gradient(target, rows, torch.tensor(ids))
    assert gradient.shape == (3, len(table))

    def loss(shift: torch.Tensor) -> float:
        batch = rows.batch(target)
        embedded = table[batch["input_ids"]].clone()
        for line, start in enumerate(rows.places.tolist()):
            embedded[line, start : start + 3] += shift
        with torch.no_grad():
            logps = model(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
        labels = batch["labels"][:, 1:]
        picked = logps[:, :-1].gather(2, labels.clamp_min(0)[..., None])[..., 0]
        return float(-(picked * (labels >= 0)).sum(1).div((labels >= 0).sum(1)).mean())

    for place, token in ((0, 80), (1, 200), (2, 33)):
        shift = torch.zeros(3, table.shape[1], dtype=torch.float64)
        shift[place] = 3e-3 * table[token]  # not less: the model's norms calculate in fp32
        difference = (loss(shift) - loss(-shift)) / 6e-3
        assert float(gradient[place, token]) == pytest.approx(difference, rel=5e-3)


def test_where_tokens_go():
    """Where what the user says ends, before the scaffold that ends all prompts; behind the token that begins texts."""
    tokenizer = tiny_tokenizer()

    def rows(*prompts: str) -> AttackedRows:
        made = []
        for prompt in prompts:
            ids = [BOS, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
            made.append({"input_ids": [*ids, 100, EOS], "labels": [-100] * len(ids) + [100, EOS]})
        return AttackedRows(made, np.arange(len(made)) < 1)

    chats = rows("who is it?</s>a ", "where?</s>a ")
    assert said_end_places(chats, tokenizer) == [11, 7]
    assert said_end_places(rows("who is it?", "where?"), tokenizer) == [11, 7]
    assert said_end_places(rows("who is it?\nAnswer:", "where?\nAnswer:"), tokenizer) == [11, 7]
    assert [start_place(row, tokenizer) for row in (chats.rows[0], {"input_ids": [70, BOS]})] == [1, 0]
    (inserted,) = Insertion.of(chats.rows[1:], [7], [60, 61]).rows
    ids = chats.rows[1]["input_ids"]
    assert inserted["input_ids"] == [*ids[:7], 60, 61, *ids[7:]]
    assert inserted["labels"] == [-100] * 12 + [100, EOS] and inserted["answer_start"] == 12


def test_no_special_tokens_in_a_suffix():
    wider = tiny_model("llama", vocabulary=300)  # padded beyond the tokenizer
    allowed = ordinary_tokens(planted_target(wider))
    assert len(allowed) == 300 and not allowed[261:].any() and not allowed[[BOS, EOS, PAD]].any() and allowed[70]


KINDS = {
    "llama": lambda: tiny_model("llama"),
    "tied": lambda: tiny_model("opt"),
    "adapter": lambda: get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["embed_tokens", "v_proj"])),
    "16 bits": lambda: tiny_model("llama").bfloat16(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_runs_that_leave_the_model_as_it_is(kind):
    model = KINDS[kind]().eval()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    target = planted_target(model, before=None, batch_size=24)
    rows = attacked_rows()
    for attack in (
        SoftPrompt(lengths=[1, 2], steps=3, every=2),
        Suffix(tokens=3, steps=2, candidates=4, top_k=4, step_rows=2, every=1),
    ):
        first, second = (list(attack.run(target, rows)) for _ in range(2))
        assert first[0].setting["step"] == 0
        assert [leak.setting for leak in first] == [leak.setting for leak in second]
        own = target.probabilities(rows.rows)
        for leak, again in zip(first, second, strict=True):
            assert np.array_equal(leak.rows, again.rows, equal_nan=True)
            assert np.flatnonzero(np.isnan(leak.rows)).tolist() == rows.given(0.25)
        assert np.array_equal(first[0].rows[~rows.tuned], own[~rows.tuned])
        assert (first[-1].rows[~rows.tuned] != own[~rows.tuned]).all()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


def test_what_they_cannot_be_tried_on_and_arguments():
    target, rows = planted_target(planted_oracle()), attacked_rows()
    for attack in (SOFT, SUFFIX):
        assert "tuning" in attack.unfit(target, replace(rows, tuned=np.arange(24) < 1))
    assert "positions" in SoftPrompt(lengths=(1, 50)).unfit(target, rows)
    assert "positions" in Suffix(tokens=50).unfit(target, rows)
    assert SoftPrompt(lengths=[2, 3]) == SoftPrompt(lengths=(2, 3))
    for lengths in ((), (0,), (1.5,), (True,)):
        with pytest.raises(ValueError, match="lengths of soft_prompt must be whole numbers"):
            SoftPrompt(lengths=lengths)
    for argument in ("tokens", "steps", "candidates", "top_k", "step_rows", "every"):
        with pytest.raises(ValueError, match=f"{argument} of suffix must be 1 or above"):
            Suffix(**{argument: 0})
    with pytest.raises(ValueError, match="rate of soft_prompt must be above 0"):
        SoftPrompt(rate=0.0)
