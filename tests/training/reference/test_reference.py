"""The reference of a run: cached once, never stale, never the model that changes, or an error. Not what reads it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from fixtures.bad_input import build, logged
from fixtures.models import (
    item_at,
    make_trainer,
    perturbed,
    step_logs,
    tiny_model,
    tiny_tokenizer,
    train_sets,
    weights,
)
from hf_unlearn import UnlearningTrainer
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.training.reference import cache
from hf_unlearn.training.reference.plan import ReferenceMode
from oracles import naive

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
NPO_AT_REFERENCE = 20 * 0.6931471805599453  # (2 / beta) ln 2


@pytest.fixture
def scored(monkeypatch) -> list[str]:
    """What was scored outside the training steps, in order."""
    calls: list[str] = []
    original = RowScorer.__call__

    def counted(self: RowScorer, model: nn.Module, rows: Any, description: str) -> Any:
        calls.append(description)
        return original(self, model, rows, description)

    monkeypatch.setattr(RowScorer, "__call__", counted)
    return calls


def npo(folder: Path, model: nn.Module | None = None, **options: Any) -> UnlearningTrainer:
    """A trained NPO run without a retain side: its reference is cached log-probs of the forget rows."""
    trainer = make_trainer(folder, model or tiny_model(), **{"forget_loss": "npo", "retain_loss": "none"} | options)
    assert trainer.reference.plan.modes == {ReferenceMode.PRECOMPUTED}
    trainer.train()
    return trainer


def cache_files(folder: Path) -> list[Path]:
    return sorted((folder / "reference").iterdir())


# --- The cache ---


def test_log_probs_are_computed_once_and_read_again(tmp_path, scored):
    first = npo(tmp_path)
    assert scored == ["reference log-probs of forget rows"]
    (path,) = cache_files(tmp_path)
    written = path.read_bytes()
    second = npo(tmp_path)
    assert len(scored) == 1, "the second trainer computed what was on disk"
    assert cache_files(tmp_path) == [path] and path.read_bytes() == written
    assert step_logs(first) == step_logs(second)


def test_a_file_holds_the_log_probs_of_the_rows_in_order(tmp_path):
    trainer = npo(tmp_path)
    stored = load_file(cache_files(tmp_path)[0])
    expected = [naive.token_logps(tiny_model(), row).detach() for row in trainer.train_sets.forget]
    torch.testing.assert_close(stored["logps"], torch.cat(expected), rtol=1e-5, atol=1e-5)
    assert stored["lengths"].tolist() == [len(each) for each in expected]


def test_a_trainer_that_trains_again_keeps_its_reference(tmp_path, scored):
    trainer = npo(tmp_path, learning_rate=1e-3)
    trainer.train()
    assert len(scored) == 1
    # The second run starts from the moved model, so it is not at the reference any more.
    assert step_logs(trainer)[-1]["forget/npo"] < 0.99 * NPO_AT_REFERENCE


def other_data() -> dict[str, Any]:
    sets = train_sets()
    rows = [dict(row) for row in sets["forget"]]
    rows[3]["completion"] = rows[3]["completion"][:-1] + "!"  # as many tokens, one of them another
    return {"sets": sets | {"forget": datasets.Dataset.from_list(rows)}}


def other_weights() -> dict[str, Any]:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    return {"model": model}


def other_tokenizer() -> dict[str, Any]:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    return {"tokenizer": tokenizer, "model": tiny_model(vocabulary=262)}


def other_configuration() -> dict[str, Any]:
    model = tiny_model()
    model.config.rms_norm_eps = 1e-3  # equal weights that compute something else
    return {"model": model}


@pytest.mark.parametrize("change", [other_data, other_weights, other_tokenizer, other_configuration])
def test_another_run_does_not_read_the_file(tmp_path, scored, change):
    npo(tmp_path)
    npo(tmp_path, **change())
    assert len(scored) == 2 and len(cache_files(tmp_path)) == 2


@pytest.mark.parametrize("option", ["lora_alpha", "use_rslora"])
def test_another_scale_of_the_same_adapter_does_not_read_the_file(tmp_path, option):
    def model(**changed: Any) -> nn.Module:
        torch.manual_seed(0)
        options = {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj"]} | changed
        return perturbed(get_peft_model(tiny_model(), LoraConfig(**options)), scale=0.3)

    npo(tmp_path, model())
    changed = npo(tmp_path, model(**{"lora_alpha": {"lora_alpha": 64}, "use_rslora": {"use_rslora": True}}[option]))
    assert step_logs(changed)[0]["forget/npo"] == pytest.approx(NPO_AT_REFERENCE, rel=1e-5)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty", "other_rows"])
def test_a_damaged_file_is_computed_again(tmp_path, scored, damage):
    intact = npo(tmp_path)
    (path,) = cache_files(tmp_path)
    content = path.read_bytes()
    if damage == "other_rows":
        folder = tmp_path / "other"
        sets = train_sets()
        npo(folder, sets=sets | {"forget": sets["forget"].select(range(5))})
        scored.pop()
        path.write_bytes(cache_files(folder)[0].read_bytes())
    else:
        path.write_bytes({"truncated": content[:-16], "overwritten": b"\xff" * len(content), "empty": b""}[damage])
    again = npo(tmp_path)
    assert len(scored) == 2
    assert path.read_bytes() == content, "the damaged file was left in place"
    assert step_logs(again) == step_logs(intact)


def test_alternates_have_a_file_of_their_own(tmp_path, scored):
    trainer = npo(tmp_path, forget_loss="dpo")
    assert scored == ["reference log-probs of forget rows", "reference log-probs of alternate rows"]
    assert len(cache_files(tmp_path)) == 2
    assert step_logs(trainer)[0]["forget/dpo"] == pytest.approx(NPO_AT_REFERENCE, rel=1e-6)
    # The forget rows' file is NPO's too.
    npo(tmp_path)
    assert len(scored) == 2


# --- Where there is no cache ---


class Stream(torch.utils.data.IterableDataset):
    """Rows in order, without a length."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = list(rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@pytest.mark.parametrize("kind", ["datasets", "torch"])
@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
def test_a_stream_has_a_live_reference(tmp_path, scored, kind, peft_config):
    sets = train_sets()
    streams = {k: v.to_iterable_dataset() if kind == "datasets" else Stream(v) for k, v in sets.items()}
    options = dict(forget_loss="npo", retain_loss="none", max_steps=3, max_length=64, peft_config=peft_config)
    live = make_trainer(tmp_path, tiny_model(), sets=streams, **options)
    expected = ReferenceMode.FROZEN_COPY if peft_config is None else ReferenceMode.ADAPTER_DISABLED
    assert live.reference.plan.modes == {expected}
    live.train()
    assert scored == []
    cached = make_trainer(tmp_path, tiny_model(), sets=sets, train_sampling_strategy="sequential", **options)
    cached.train()
    for one, other in zip(step_logs(live), step_logs(cached), strict=True):
        assert one["forget/npo"] == pytest.approx(other["forget/npo"], rel=1e-5)
    assert step_logs(live)[2]["forget/npo"] < 0.99 * NPO_AT_REFERENCE


def test_without_a_need_there_is_no_reference(tmp_path, scored):
    trainer = make_trainer(tmp_path, tiny_model(), forget_loss="grad_ascent", retain_loss="nll")
    trainer.train()
    assert trainer.reference.plan.modes == set() and trainer.reference._frozen is None and scored == []
    assert not (tmp_path / "reference").exists()


# --- The reference is another model, and stays what it was ---


def test_a_frozen_copy_stays_what_the_model_was(tmp_path):
    model = tiny_model(dropout=0.3)
    before = weights(model)
    trainer = make_trainer(tmp_path, model, forget_loss="npo", retain_loss="kl", max_steps=3, disable_dropout=False)
    trainer.train()
    frozen = trainer.reference._frozen
    assert frozen is not trainer.model and not frozen.training
    assert all(
        torch.equal(weight, before[name]) and not weight.requires_grad for name, weight in frozen.named_parameters()
    )
    assert not {p.data_ptr() for p in frozen.parameters()} & {p.data_ptr() for p in trainer.model.parameters()}
    assert any(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


def test_a_reference_forward_leaves_a_trained_adapter_as_it_is(tmp_path):
    model = perturbed(get_peft_model(tiny_model(), LORA), scale=0.3)
    given = weights(model)
    trainer = make_trainer(tmp_path, model, forget_loss="npo", retain_loss="kl", reference="adapter", max_steps=3)
    trainer.train()
    assert trainer.reference._frozen is None
    trained = weights(model)
    assert all(torch.equal(trained[n], given[n]) for n in given if "lora_" not in n)
    assert all(not torch.equal(trained[n], given[n]) for n in given if "lora_" in n)
    assert model.get_model_status().enabled


def test_a_frozen_adapter_that_is_active_belongs_to_the_reference(tmp_path):
    model = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules=["q_proj"]), adapter_name="memory")
    model = perturbed(model, scale=0.3)
    model.add_adapter("unlearn", LoraConfig(r=4, target_modules=["v_proj"]))
    model.base_model.set_adapter(["memory", "unlearn"])
    for name, weight in model.named_parameters():
        weight.requires_grad_("unlearn" in name)
    trainer = make_trainer(tmp_path, model, forget_loss="npo", retain_loss="kl", reference="adapter")
    trainer.train()
    (log,) = step_logs(trainer)
    assert log["forget/npo"] == pytest.approx(NPO_AT_REFERENCE, rel=1e-5)
    assert log["retain/kl"] == pytest.approx(0, abs=1e-6)


def test_a_given_reference_is_what_log_probs_are_taken_from(tmp_path):
    reference = perturbed(tiny_model(), scale=0.05)
    trainer = npo(tmp_path, ref_model=reference, max_steps=1)
    rows = [item_at(trainer, place) for place in range(4)]
    expected = naive.npo(tiny_model(), reference, rows, 0.1).item()
    assert expected != pytest.approx(NPO_AT_REFERENCE, rel=1e-2)
    assert step_logs(trainer)[0]["forget/npo"] == pytest.approx(expected, rel=1e-5)


# --- model_init ---


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("retain_loss", ["none", "kl"])
def test_a_model_made_anew_starts_anew(tmp_path, peft_config, retain_loss):
    made: list[nn.Module] = []

    def model_init() -> nn.Module:
        made.append(tiny_model())
        return made[-1]

    trainer = make_trainer(
        tmp_path,
        None,
        model_init=model_init,
        peft_config=peft_config,
        forget_loss="npo",
        retain_loss=retain_loss,
        forget_nll_bound="holdout",
        max_steps=3,
        logging_steps=3,
    )
    runs = []
    for _ in range(2):
        trainer.train()
        runs.append((step_logs(trainer), weights(trainer.model)))
    (first, first_weights), (second, second_weights) = runs
    assert len(made) == 3  # once for the Trainer to look at, once a run
    assert first == second
    assert all(torch.equal(first_weights[name], second_weights[name]) for name in first_weights)


def test_the_reference_follows_a_model_that_is_made_otherwise(tmp_path):
    models = iter([tiny_model(seed=seed) for seed in (0, 1, 2)])
    trainer = make_trainer(tmp_path, None, model_init=lambda: next(models), forget_loss="npo", retain_loss="kl")
    for _ in range(2):
        trainer.train()
        (log,) = step_logs(trainer)
        assert log["forget/npo"] == pytest.approx(NPO_AT_REFERENCE, rel=1e-5)
        assert log["retain/kl"] == pytest.approx(0, abs=1e-6)


# --- Errors ---


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("PEFT model", {"reference": "adapter"}),
        ("nothing reads it", {"forget_loss": "grad_ascent", "ref_model": "another"}),
        (
            "both reference='adapter' and ref_model",
            {"reference": "adapter", "peft_config": LORA, "ref_model": "another"},
        ),
        ("whole distributions", {"reference": "precomputed", "retain_loss": "kl"}),
        ("a stream", {"reference": "precomputed", "stream": True}),
        ("to have weights of its own", {"ref_model": "the model itself"}),
        ("alternate answer", {"forget_loss": "dpo", "without": "alternate"}),
    ],
)
def test_a_reference_that_cannot_be_had_is_an_error(tmp_path, message, options):
    model, sets = tiny_model(), train_sets()
    arguments = {"forget_loss": "npo", "retain_loss": "nll"} | options
    if arguments.pop("stream", False):
        sets["forget"], arguments["max_length"] = sets["forget"].to_iterable_dataset(), 64
    if column := arguments.pop("without", None):
        sets["forget"] = sets["forget"].remove_columns([column])
    if given := arguments.get("ref_model"):
        arguments["ref_model"] = model if given == "the model itself" else copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"Expected [\s\S]*What to do") as error:
        make_trainer(tmp_path, model, sets=sets, **arguments)
    assert message in str(error.value)


def test_an_unknown_reference_names_the_nearest(tmp_path):
    with pytest.raises(
        ValueError, match=r"^reference must be a known name, got 'precompute'; did you mean 'precomputed'"
    ):
        make_trainer(tmp_path, tiny_model(), sets=train_sets(), forget_loss="npo", reference="precompute")


def test_rows_that_are_not_those_of_the_cache_are_an_error(tmp_path):
    trainer = npo(tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    batch["row"] = (batch["row"] + 1) % 12
    with pytest.raises(ValueError, match="rows of other lengths"):
        trainer.compute_loss(trainer.model, batch)


def test_a_cache_that_cannot_be_used_stops_no_run(tmp_path, monkeypatch, caplog):
    """A file in its place, and a full disk: the losses of the run with a cache, and a warning that names the place."""
    expected = build(tmp_path / "sound", forget_loss="npo")
    expected.train()
    file, folder = tmp_path / "a_file", tmp_path / "full"
    file.write_text("")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in (file, folder):
        if place is folder:
            monkeypatch.setattr(cache, "save_file", full)
        trainer = build(tmp_path / "out", forget_loss="npo", reference_cache_dir=str(place))
        trainer.train()
        assert f"{place}" in caplog.text and "goes on without it" in caplog.text
        assert logged(trainer, "loss") == logged(expected, "loss")
        assert place is file or not list(place.iterdir())  # nothing half written
