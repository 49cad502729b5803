"""What a training step never holds: logits of a whole batch, of the policy or of the reference. Not a measurement."""

import pytest
import torch
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fixtures.models import make_trainer, tiny_model
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES, DistributionLoss
from hf_unlearn.model import chunk_sizes

VOCABULARY = 4096
CHUNK = 1 << 15

ON_DISTRIBUTIONS = [(name, "nll") for name, loss in FORGET_LOSSES.items() if issubclass(loss, DistributionLoss)]
ON_DISTRIBUTIONS += [
    ("grad_ascent", name) for name, loss in RETAIN_LOSSES.items() if issubclass(loss, DistributionLoss)
]


class Largest(TorchDispatchMode):
    """The largest tensor that any operation puts out, in elements, by type."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements[leaf.dtype] = max(self.elements.get(leaf.dtype, 0), leaf.numel())
        return out


@pytest.mark.parametrize("peft_config", [None, LoraConfig(r=2, target_modules=["q_proj"])], ids=["full", "lora"])
@pytest.mark.parametrize(("forget", "retain"), ON_DISTRIBUTIONS)
def test_no_operation_of_a_step_makes_the_logits_of_a_whole_batch(tmp_path, monkeypatch, forget, retain, peft_config):
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * CHUNK)
    policy = tiny_model(vocabulary=VOCABULARY).to(torch.bfloat16)
    given = FORGET_LOSSES[forget].of_given_reference
    trainer = make_trainer(
        tmp_path,
        policy,
        forget_loss=forget,
        retain_loss=retain,
        peft_config=peft_config,
        ref_model=tiny_model(vocabulary=VOCABULARY, seed=1).to(torch.bfloat16) if given else None,
    )
    (batch,) = [trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))]
    trainer.train()  # what is made once: the reference, the bound
    with Largest() as largest:
        trainer.compute_loss(trainer.model, batch).backward()
    rows, length = batch["input_ids"].shape
    answers = int((batch["labels"] != -100).sum())
    head = trainer.model.get_output_embeddings().weight.numel()
    limit = max(CHUNK, head)  # the gradient of the head is as large as the head
    assert limit < answers * VOCABULARY < rows * length * VOCABULARY / 2, "the test tells nothing apart"
    assert largest.elements[torch.bfloat16] <= limit
    # Softmaxes are in fp32, of a chunk at a time; so is the sum of the head's gradient over chunks.
    assert 0 < largest.elements[torch.float32] <= (limit if peft_config is None else CHUNK)
