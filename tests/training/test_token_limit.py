"""Runs whose micro-batches are cut by tokens, against those that are not. Not how rows are cut."""

import copy
from typing import Any

import datasets
import pytest
import torch
from transformers import DataCollatorForSeq2Seq

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, tiny_tokenizer, train_sets, weights
from hf_unlearn.data.batch import parts_of

HOLDOUT = [{"prompt": f"what is {i}?", "completion": f" cat {i * 37}" + " y" * (i % 4)} for i in range(24)]
LIMIT = 64

RUNS: dict[str, dict[str, Any]] = {
    "npo + kl": dict(forget_loss="npo", retain_loss="kl", gradient_accumulation_steps=2),
    "mismatch and alternates": dict(
        forget_loss=["dpo", {"name": "random_mismatch", "k": 2}], retain_loss=["nll", "answer_preservation"]
    ),
    "anchor and primal dual": dict(
        forget_loss="simnpo", anchor_loss="kl", anchor_ratio=0.5, weighting="primal_dual", retain_ratio=2
    ),
    "levels from both sides": dict(
        forget_loss=["unseen_level", "simnpo"], levels="ngram", forget_nll_bound="levels", forget_bound_sides="both"
    ),
    "hidden states": dict(forget_loss={"name": "rmu", "layer": 1}, retain_loss={"name": "hidden", "layer": 1}),
    "sides apart": dict(forget_loss="simnpo", step_wrappers=["sam", "surgery"]),
    "one line": dict(forget_loss="simnpo", padding_free=True),
    "experts": dict(forget_loss="grad_ascent", kind="mixtral"),
}


def run(
    folder: Any, arguments: dict[str, Any], **more: Any
) -> tuple[list[dict[str, float]], dict[str, Any], list[int]]:
    """Logs, weights and the number of forwards of each micro-batch."""
    arguments = copy.deepcopy(arguments) | more
    model = tiny_model(arguments.pop("kind", "llama"))
    if arguments.get("retain_loss") == "kl":
        arguments["ref_model"] = perturbed(tiny_model())
    sets = train_sets() | {"holdout": datasets.Dataset.from_list(HOLDOUT)}
    trainer = make_trainer(folder, model, sets=sets, **{"max_steps": 3, "per_device_train_batch_size": 4} | arguments)
    trainer.train()
    return (
        step_logs(trainer),
        weights(trainer.model),
        [len(parts_of(batch)) for batch in trainer.get_train_dataloader()],
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_parts_is_the_run_of_whole_batches(tmp_path, name):
    logs, ends, counts = zip(
        *(run(tmp_path / str(limit), RUNS[name], max_tokens_per_batch=limit) for limit in (None, LIMIT)), strict=True
    )
    assert max(counts[0]) == 1 and min(counts[1]) > 1
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
    for weight, value in ends[0].items():
        torch.testing.assert_close(ends[1][weight], value, rtol=1e-5, atol=1e-5)
    assert logs[0][0]["loss"] != logs[0][-1]["loss"]


def test_a_resumed_run_goes_on_to_the_last_bit(tmp_path):
    cut = RUNS["npo + kl"] | dict(max_tokens_per_batch=LIMIT, save_strategy="steps", save_steps=2, max_steps=4)
    logs, ends, _ = run(tmp_path, cut)
    again_logs, again_ends, _ = run(tmp_path, cut, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert again_logs[-1]["loss"] == logs[-1]["loss"]
    assert all(torch.equal(again_ends[name], weight) for name, weight in ends.items())


def test_what_cannot_be_cut_is_refused(tmp_path):
    own = DataCollatorForSeq2Seq(tiny_tokenizer())
    with pytest.raises(ValueError, match="data_collator of your own") as refused:
        make_trainer(tmp_path, tiny_model(), data_collator=own, max_tokens_per_batch=LIMIT)
    assert_four_parts(str(refused.value))
    with pytest.raises(ValueError, match="max_tokens_per_batch"):
        make_trainer(tmp_path, tiny_model(), max_tokens_per_batch=0)
