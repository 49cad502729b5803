"""Model state arithmetic: where it gives the oracle exactly, the formula by hand, and what it does to rows kept."""

import copy

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from fixtures.edited import edited, learnt_later, planted_data, tuned, weights_equal
from fixtures.models import VOCABULARY, tiny_model
from fixtures.planted import planted_oracle, planted_rows
from hf_unlearn.edits import EDITS, MSA
from oracles.fine_tuning import naive_fine_tune

SHORT = {"epochs": 1.0, "retain_epochs": 1.0, "rate": 1e-3, "batch": 8, "whole_text": False}
STEPS = {"steps": 3, "rate": 1e-3, "batch": 8}


class Bigrams(PreTrainedModel):
    """A linear softmax model: the logits of the next token are a column of one matrix, chosen by the present one."""

    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("one_hot", torch.eye(config.vocab_size))
        self.head = nn.Linear(config.vocab_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if module is self.head:
            nn.init.zeros_(module.weight)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None, use_cache=False, **more):
        return CausalLMOutput(logits=self.head(self.one_hot[input_ids]))


def row(*ids):
    return {"input_ids": list(ids), "labels": [-100, *ids[1:]], "answer_start": 1}


def test_gives_the_oracle_of_a_linear_model_whose_rows_share_no_feature():
    """AdamW moves each weight by its own gradients, whatever their scale: full-batch fine-tunings add up there."""
    start = Bigrams(PretrainedConfig(vocab_size=VOCABULARY, pad_token_id=0))
    # The tokens that predict something are 10 to 19 in forget rows, and 30 to 39 in retain rows.
    forget = [row(10 + i, 60 + i) for i in range(10)]
    retain = [row(30 + i, 30 + (3 * i + 1) % 10, 90) for i in range(10)]
    settings = {"rate": 0.1, "batch": 100}
    model, oracle = tuned(start, [*forget, *retain], steps=20, **settings), tuned(start, retain, steps=20, **settings)
    assert (model.head.weight - oracle.head.weight).abs().max() > 1
    sets = {"forget": forget, "retain": retain}
    edit = MSA(alpha=1.0, beta=0.0, epochs=20.0, whole_text=False, **settings)
    result = edited(edit, copy.deepcopy(model), sets, checkpoint=start)
    torch.testing.assert_close(result.model.head.weight, oracle.head.weight, atol=1e-3, rtol=0)
    half = edited(MSA(alpha=0.5, beta=0.0, epochs=20.0, whole_text=False, **settings), model, sets, checkpoint=start)
    assert (half.model.head.weight - oracle.head.weight).abs().max() > 0.5


def test_gives_the_oracle_of_any_model_that_learnt_the_forget_rows_alone():
    """theta_f - (theta_f - theta_0) + (theta_r - theta_0) = theta_r: fine-tuned on the retain rows alone."""
    start, sets = tiny_model().eval(), planted_rows()
    model = tuned(start, sets["forget"], **STEPS)
    report = edited(MSA(alpha=1.0, beta=1.0, **SHORT), copy.deepcopy(model), checkpoint=start)
    assert weights_equal(report.model, tuned(start, sets["retain"], **STEPS))
    less = edited(MSA(alpha=1.0, beta=0.5, **SHORT), model, checkpoint=start)
    assert not weights_equal(less.model, report.model)


def test_is_the_formula():
    start, sets = tiny_model().eval().double(), planted_rows()
    given = tiny_model(seed=1).eval().double()
    report = edited(MSA(alpha=1.5, beta=0.5, **SHORT), copy.deepcopy(given), checkpoint=start)
    ends = (naive_fine_tune(start, sets[name], **STEPS) for name in ("forget", "retain"))
    models = (report.model, given, start, *ends)
    for weight, before, zero, f, r in zip(*(x.parameters() for x in models), strict=True):
        torch.testing.assert_close(weight, before - 1.5 * (f - zero) + 0.5 * (r - zero), atol=1e-6, rtol=0)
    assert [one.setting.get("model") for one in report.tried] == [
        "checkpoint",
        "forget fine-tune",
        "retain fine-tune",
        None,
    ]
    assert report.tried[-1].chosen


def test_reaches_the_level_and_needs_no_retain_rows_for_beta_0():
    later = {"epochs": 20.0, "rate": 5e-4, "whole_text": False}
    report = edited(MSA(**later), learnt_later(), checkpoint=planted_oracle())
    assert report.before.forget < 0.1 and abs(report.after.forget - report.level) < 0.1
    assert report.after.retain < 0.4
    data = planted_data()
    alone = edited(
        MSA(beta=0.0, **later), learnt_later(), {"forget": data["forget"]}, level=4.0, checkpoint=planted_oracle()
    )
    assert abs(alone.after.forget - 4) < 0.1 and "retain fine-tune" not in [
        t.setting.get("model") for t in alone.tried
    ]


def test_arguments_and_what_it_needs():
    assert EDITS["msa"] is MSA
    data = planted_data()
    with pytest.raises(ValueError, match="Expected checkpoint, for the edit msa"):
        edited(MSA(alpha=1.0), tiny_model())
    with pytest.raises(ValueError, match="there are no retain rows, and beta is not 0"):
        edited(MSA(alpha=1.0), tiny_model(), {"forget": data["forget"]}, checkpoint=tiny_model())
    with pytest.raises(ValueError, match=r"a checkpoint with the weights of the model.*\n.*embed_tokens"):
        edited(MSA(alpha=1.0), tiny_model(), checkpoint=tiny_model("opt"))
    for wrong in ({"rate": 0.0}, {"max_alpha": -1.0}, {"epochs": 0.0}, {"retain_epochs": 0.0}, {"rank": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MSA(**wrong)
