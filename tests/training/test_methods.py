"""The method of a run is resolved once, from the config or the trainer's own arguments, and everyone has that one."""

import json

import pytest

from fixtures.bad_input import config, sets
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn import UnlearningTrainer
from hf_unlearn.losses import NPO, RetainKL, RetainNLL, SimNPO
from hf_unlearn.steps import SAM, GradientSurgery
from hf_unlearn.steps.weighting import Fixed, PrimalDual
from hf_unlearn.training.methods import Methods


def test_it_is_what_the_arguments_say(tmp_path):
    args = config(
        tmp_path,
        forget_loss={"name": "npo", "beta": 0.5},
        retain_loss=["nll", {"name": "kl", "weight": 2.0}],
        step_wrappers=["sam", "surgery"],
        weighting="primal_dual",
    )
    methods = Methods.resolve(args)
    assert methods.forget == (NPO(beta=0.5),) and methods.retain == (RetainNLL(), RetainKL(weight=2.0))
    assert methods.wrappers == (SAM(), GradientSurgery()) and methods.weighting == PrimalDual()
    assert methods.components == [*methods.forget, *methods.retain, *methods.wrappers, PrimalDual()]


def test_the_trainers_own_losses_come_first(tmp_path):
    args = config(tmp_path, forget_loss="npo", retain_loss="kl")
    assert Methods.resolve(args, SimNPO(), "none") == Methods((SimNPO(),), (), (), Fixed())
    trainer = UnlearningTrainer(
        tiny_model(),
        args=args,
        train_dataset=sets(),
        processing_class=tiny_tokenizer(),
        forget_loss=SimNPO(beta=3.0),
    )
    assert trainer.methods.forget == tuple(trainer.unlearning_objective.forget) == (SimNPO(beta=3.0),)


def test_texts_of_a_command_line():
    text = json.dumps([{"name": "sam", "rho": 0.5}])
    assert Methods.parse('{"name": "npo", "beta": 0.5}', "none", text) == Methods(
        (NPO(beta=0.5),), (), (SAM(rho=0.5),), Fixed()
    )
    with pytest.raises(ValueError, match="did you mean 'sam'"):
        Methods.parse("npo", wrappers="samm")
