"""Every forget loss with every retain loss, and what is refused by name. That they run, not what they compute."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from fixtures.examples import assert_user_error
from fixtures.models import FORGET, HOLDOUT, RETAIN, make_trainer, step_logs, tiny_model, tiny_tokenizer, weights
from fixtures.one_step import PULL
from fixtures.one_step import losses as losses_of
from hf_unlearn import UnlearningTrainer, losses
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES, Loss

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
RETAIN_CHOICES = ["none", *RETAIN_LOSSES]

# Two rows a step for two steps, and few to tokenise: there are hundreds of runs below.
SETS: dict[str, list[dict[str, str]]] = {"forget": FORGET[:4], "retain": RETAIN[:6], "holdout": HOLDOUT}
TOKENIZER = tiny_tokenizer()

# Above every NLL of a random model, so that all rows push and yet every row's level is read.
HIGH_BOUND = 1000.0


def small_trainer(folder: Path, kind: str = "llama", sets: dict[str, Any] = SETS, **options: Any) -> UnlearningTrainer:
    arguments = {"per_device_train_batch_size": 2, "max_steps": 2} | options
    return make_trainer(folder, tiny_model(kind), tokenizer=TOKENIZER, sets=dict(sets), **arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One for all runs, which share the cached log-probs of the reference."""
    return tmp_path_factory.mktemp("composition")


@pytest.fixture
def tokenized_once(monkeypatch):
    """A third of a run's time would go into the same few rows: `SETS` are tokenised once for all runs."""
    monkeypatch.setattr(
        RowOptions,
        "tokenize",
        lambda self, rows, set_name, alternates=False: _tokenized(
            dataclasses.replace(self, cache=None), set_name, alternates
        ),
    )


@functools.cache
def _tokenized(options: RowOptions, set_name: str, alternates: bool) -> Any:
    return tokenize_rows(
        SETS[set_name], options.tokenizer, set_name=set_name, max_length=options.max_length, alternates=alternates
    )


def expected_components(forget: str, retain: str, likelihoods: bool) -> set[str]:
    """What a step must log by name; levels only where the forward goes on to the log-probs."""
    names = {f"forget/{forget}", "bound_share"} | ({f"retain/{retain}"} if retain != "none" else set())
    if likelihoods:
        names |= {"forget_nll"} | ({"retain_nll"} if retain != "none" else set())
    return names


def check_run(folder: Path, kind: str, adapter: LoraConfig | None, forget: str, retain: str) -> None:
    """Two steps: finite numbers, all components, and all that is to move has moved and nothing else."""
    loss = FORGET_LOSSES[forget]
    bound = None if adapter is None or loss.two_sided else HIGH_BOUND
    levels = "holdout" if loss.needs.levels else None
    terms = losses_of({forget: PULL.get(forget, 1.0)}, {} if retain == "none" else {retain: 1.0})
    options = dict(**terms, peft_config=adapter, forget_nll_bound=bound, levels=levels)
    other = {"ref_model": tiny_model(kind, seed=1)} if loss.of_given_reference else {}
    trainer = small_trainer(folder, kind, **options, **other)
    before, trainable = weights(trainer.model), {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert (len(trainable) < len(before)) == (adapter is not None)
    trainer.train()
    of_hidden_states = forget == "rmu" and retain in ("none", "hidden")
    components = expected_components(forget, retain, likelihoods=not of_hidden_states or bound is not None)
    logs = step_logs(trainer)
    pair = f"{forget} + {retain}"
    assert len(logs) == 2, pair
    for log in logs:
        assert {name for name in log if "/" in name or name.endswith(("_nll", "_share"))} == components, pair
        assert all(math.isfinite(value) for value in log.values()), pair
    # A third of the depth is the first of two blocks: nothing above it enters losses of hidden states.
    above = ("layers.1.", "model.norm.", "decoder.final_layer_norm", "lm_head") if of_hidden_states else ()
    wanted = {name for name in trainable if not any(part in name for part in above)}
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p.detach(), before[n])}
    # Two steps are too few for every lora_A, whose gradient is zero until its lora_B has moved.
    surely = {name for name in wanted if adapter is None or "lora_B" in name}
    assert surely and surely <= moved <= wanted, pair


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("forget", list(FORGET_LOSSES))
def test_every_forget_loss_trains_beside_every_retain_loss(folder, tokenized_once, kind, adapter, forget):
    """Each pair on both models, and with and without an adapter: two runs of the four that there are."""
    first = ([*FORGET_LOSSES].index(forget) + (kind == "opt") + (adapter is not None)) % 2
    for retain in RETAIN_CHOICES[first::2]:
        check_run(folder, kind, adapter, forget, retain)


# --- What does not go together ---


def refused(make: Callable[[], Any], *words: str) -> None:
    """Call `make`; it must raise a whole user error with all the words."""
    with pytest.raises(ValueError) as caught:
        make()
    assert_user_error(str(caught.value), *words)


def without_alternates(name: str) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key != "alternate"} for row in SETS[name]]
    return {**SETS, name: rows}


FORGET_ALTERNATES = ["an alternate answer in every row of the forget set", "`alternate` column"]

# Options of a trainer -> what the error must say.
REFUSED_PAIRS: dict[str, tuple[dict[str, Any], list[str]]] = {
    **{
        f"{name} from cached log-probs": (
            {"forget_loss": "npo", "retain_loss": name, "reference": "precomputed"},
            [f"{name} without reference='precomputed'", f"{name} under reference='precomputed'"],
        )
        for name in ("kl", "jsd", "hidden")
    },
    "undial from cached log-probs": (
        {"forget_loss": "undial", "retain_loss": "nll", "reference": "precomputed"},
        ["undial without reference='precomputed'", "whole distributions"],
    ),
    "one of two terms from cached log-probs": (
        {"forget_loss": ["npo", "undial"], "retain_loss": "nll", "reference": "precomputed"},
        ["undial under reference='precomputed'"],
    ),
    "rmu above the model": (
        {"forget_loss": {"name": "rmu", "layer": 3}, "retain_loss": "none"},
        ["a layer of at most 2", "Got: 3"],
    ),
    "hidden above the model": (
        {"forget_loss": "npo", "retain_loss": {"name": "hidden", "layer": 17}},
        ["a layer of at most 2", "Got: 17"],
    ),
    **{
        f"{name} without alternates": (
            {"forget_loss": name, "retain_loss": "nll", "sets": without_alternates("forget")},
            FORGET_ALTERNATES,
        )
        for name in ("flat", "jsd", "idk", "dpo")
    },
    "answer_preservation without alternates": (
        {
            "forget_loss": "npo",
            "retain_loss": "answer_preservation",
            "sets": without_alternates("retain"),
        },
        ["an alternate answer in every row of the retain set", "`alternate` column", "a refusal"],
    ),
    "a reference that nothing reads": (
        {"forget_loss": "ceu", "retain_loss": "answer_preservation", "ref_model": "another"},
        ["nothing reads it"],
    ),
    "one term twice": (
        {"forget_loss": [{"name": "rmu", "layer": 1}, {"name": "rmu", "layer": 2}], "retain_loss": "none"},
        ["rmu more than once"],
    ),
    "a retain set that is not there": (
        {"forget_loss": "rmu", "retain_loss": "hidden", "sets": {"forget": SETS["forget"]}},
        ["train_dataset['retain']"],
    ),
    **{
        f"{name} to keep": (
            {"forget_loss": "npo", "retain_loss": name},
            ["retain_loss must be a known name", repr(name)],
        )
        for name in sorted(FORGET_LOSSES.keys() - RETAIN_LOSSES.keys())
    },
    **{
        f"{name} to forget": (
            {"forget_loss": name, "retain_loss": "nll"},
            ["forget_loss must be a known name", repr(name)],
        )
        for name in sorted(RETAIN_LOSSES.keys() - FORGET_LOSSES.keys())
    },
    **{
        f"a {loss.__name__} to keep": (
            {"forget_loss": "npo", "retain_loss": loss()},
            [f"{loss.__name__}, which belongs to the other side", "swap the two arguments"],
        )
        for loss in FORGET_LOSSES.values()
    },
    **{
        f"a {loss.__name__} to forget": (
            {"forget_loss": loss(), "retain_loss": "nll"},
            [f"{loss.__name__}, which belongs to the other side", "swap the two arguments"],
        )
        for loss in RETAIN_LOSSES.values()
    },
}


@pytest.mark.parametrize("case", REFUSED_PAIRS)
def test_what_does_not_go_together_is_an_error(tmp_path, case):
    options, words = REFUSED_PAIRS[case]
    if "ref_model" in options:
        options = options | {"ref_model": tiny_model(seed=1)}
    refused(lambda: small_trainer(tmp_path, **options), *words)


def test_the_same_layers_and_references_within_reach(folder):
    # What the errors above advise.
    last = {"forget_loss": {"name": "rmu", "layer": 2}, "retain_loss": {"name": "hidden", "layer": 0.99}}
    for options in (last, {"forget_loss": "undial", "retain_loss": "kl", "reference": "copy"}):
        trainer = small_trainer(folder, **options)
        trainer.train()
        assert all(math.isfinite(value) for log in step_logs(trainer) for value in log.values())
    assert step_logs(trainer)[0]["forget/undial"] > 0


# --- Arguments out of range ---

NOT_NUMBERS: list[Any] = [True, "0.1", None, [1.0], math.nan]
NOT_POSITIVE: list[Any] = [0, -0.5, math.inf, -math.inf]
NEGATIVE: list[Any] = [-0.5, math.inf, -math.inf]
NOT_LAYERS: list[Any] = [0, 0.0, -1, -0.5, 1.5, 2.25, math.inf]

OUT_OF_RANGE: dict[type[Loss], dict[str, list[Any]]] = {
    losses.NPO: {"beta": NOT_POSITIVE},
    losses.SimNPO: {"beta": NOT_POSITIVE, "delta": [math.inf, -math.inf]},
    losses.DPO: {"beta": NOT_POSITIVE},
    losses.RandomMismatch: {"k": [0, -1, 1.5]},
    losses.WGA: {"beta": NEGATIVE},
    losses.SatImp: {"beta1": NEGATIVE, "beta2": NEGATIVE},
    losses.UNDIAL: {"beta": NOT_POSITIVE},
    losses.Distil: {"temperature": NOT_POSITIVE},
    losses.RMU: {"c": NOT_POSITIVE, "layer": NOT_LAYERS, "seed": [-1, 1.5, 1 << 64]},
    losses.UnseenLevel: {"ramp": [-0.1, 1.5, math.inf], "delta": NOT_POSITIVE, "token_weight": NEGATIVE},
    losses.RetainHidden: {"layer": NOT_LAYERS},
    losses.AnswerPreservation: {"beta": NOT_POSITIVE},
}
ALL_LOSSES = [*FORGET_LOSSES.values(), *RETAIN_LOSSES.values()]


def arguments_of(loss: type[Loss]) -> dict[str, list[Any]]:
    """Every argument of a loss with the values that it must refuse."""
    ranges = OUT_OF_RANGE.get(loss, {}) | {"weight": NEGATIVE}
    assert ranges.keys() == {each.name for each in dataclasses.fields(loss)}, "an argument without a range"
    return {name: [*NOT_NUMBERS, *values] for name, values in ranges.items()}


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda each: each.__name__)
def test_arguments_out_of_range_are_errors_that_name_them(loss):
    for argument, values in arguments_of(loss).items():
        for value in values:
            refused(lambda a=argument, v=value: loss(**{a: v}), f"{argument} of {loss.name} must be", repr(value))


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda each: each.__name__)
def test_arguments_that_no_formula_has_are_errors(tmp_path, loss):
    side = "forget_loss" if FORGET_LOSSES.get(loss.name) is loss else "retain_loss"
    for spec, words in (
        ({"name": loss.name, "weight": -1.0}, [f"weight of {loss.name} must be"]),
        ({"name": loss.name, "weights": 1.0}, [f"argument of {loss.name}", "did you mean 'weight'"]),
    ):
        refused(lambda spec=spec: small_trainer(tmp_path, **{side: spec}), *words)


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (losses.WGA, {"beta": 0}),
        (losses.SatImp, {"beta1": 0, "beta2": 0}),
        (losses.RMU, {"layer": 1.0, "seed": (1 << 64) - 1, "c": 1e-3}),
        (losses.RetainHidden, {"layer": 0.999}),
        (losses.SimNPO, {"delta": -2.0}),
        (losses.UNDIAL, {"beta": 1e-3, "weight": 0}),
        (losses.UnseenLevel, {"ramp": 1, "delta": 1e-3, "token_weight": 0}),
    ],
)
def test_arguments_at_the_end_of_their_range(loss, arguments):
    made = loss(**arguments)
    assert {name: getattr(made, name) for name in arguments} == arguments
