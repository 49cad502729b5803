"""suppress(): what the report says, what the planted secrets become, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fixtures.edited import edited, planted_data
from fixtures.inference import OF_LOGITS, SPECS, fitted, logits_of, model_with, suppressed
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import Edit
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.results.hub.push import pushable_files
from hf_unlearn.suppression import (
    SUPPRESSION_FOLDER,
    SUPPRESSION_LABEL,
    SUPPRESSIONS,
    DivergenceDecoding,
    InContext,
    PromptGuard,
    Steering,
    load_suppressor,
)
from hf_unlearn.tasks.saved_run import load_saved

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


class Nothing(Edit):
    """An edit that changes nothing."""

    name = "nothing"

    def run(self, model, data):
        return []


@pytest.mark.parametrize("name", ["ngram", "rank", "layers", "uld", "prompt_guard", "steering"])
def test_forget_rows_become_unlikely_and_retain_rows_stay(name):
    report = fitted(name)
    assert report.without.forget < 0.1 and report.suppressed.forget > 1.2
    assert report.suppressed.retain < report.without.retain + 0.5
    assert report.weights == hash_weights(planted_model())


def test_what_does_not_work_on_rows_known_by_heart_is_said():
    """More training adds nothing to rows known by heart; a model that never read a context does not read this one."""
    reinforced, context = fitted("harry_potter"), fitted("in_context")
    assert reinforced.suppressed.forget < 0.5 and "about as likely" in " ".join(reinforced.warnings)
    assert "retain rows have become less likely" in " ".join(context.warnings)


def test_reports_levels_label_and_what_it_took():
    report = fitted("layers")
    assert report.label == SUPPRESSION_LABEL == "suppression, the weights still know"
    assert report.suppression.name == "divergence_decoding" and report.suppression.arguments["steps"] == 60
    assert report.rows["forget"] == 24 and report.cpu_seconds > 0 and report.tokens > 0
    assert "word for word" in report.holds and report.holds in report.warnings and "everything" in report.restores
    told = report.to_dict()
    assert told["suppressed"]["forget"] == report.suppressed.forget and "suppressor" not in told
    assert all(name == suppression.name == suppression.fitted.name for name, suppression in SUPPRESSIONS.items())
    assert {suppression.fitted.changes_logits for suppression in SUPPRESSIONS.values()} == {True, False}
    assert tuple(name for name in SPECS if fitted(name).suppressor.changes_logits) == OF_LOGITS


@pytest.mark.parametrize(
    "spec", [{"name": "divergence_decoding"}, SPECS["uld"] | {"alpha": 0.2}], ids=["ngram", "uld"]
)
def test_strength_at_the_level_of_unseen_rows(spec):
    report = suppressed(spec | {"to_level": True})
    assert report.suppressed.forget == pytest.approx(report.level, abs=0.1) and 3 < report.level < 8
    assert report.suppressed.retain < 0.5 and report.fitted["alpha"] != spec.get("alpha", 1.5)
    higher = suppressed(spec | {"to_level": True}, level=report.level + 1)
    assert higher.suppressed.forget == pytest.approx(report.level + 1, abs=0.1)
    assert higher.fitted["alpha"] > report.fitted["alpha"]
    data = {name: rows for name, rows in planted_data().items() if name != "holdout"}
    with pytest.raises(ValueError, match="holdout rows, or level=NATS"):
        suppressed(spec | {"to_level": True}, data=data)


def test_small_models_by_name(tmp_path):
    pair = fitted("layers").suppressor
    pair.without.save_pretrained(tmp_path / "without")
    pair.knowing.save_pretrained(tmp_path / "knowing")
    names = {"without": str(tmp_path / "without"), "knowing": str(tmp_path / "knowing")}
    model, ids = planted_model(), planted_rows()["forget"][0]["input_ids"]
    suppressed({"name": "divergence_decoding", "alpha": 1.0, **names}, model)
    assert torch.equal(logits_of(model, ids), logits_of(model_with("layers"), ids))
    LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=270)).save_pretrained(tmp_path / "without")
    with pytest.raises(ValueError, match=r"(?s)small models of the model's vocabulary: 261 tokens.*270"):
        suppressed({"name": "divergence_decoding", **names})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("divergence", "divergence_decoding"),
        ({"name": "divergence_decoding", "alpha": 0}, "alpha of divergence_decoding"),
        ({"name": "divergence_decoding", "form": "cubic"}, "'linear' or 'rank'"),
        ({"name": "divergence_decoding", "form": "rank", "to_level": True}, "to_level of divergence_decoding"),
        ({"name": "divergence_decoding", "top": 0}, "top of divergence_decoding"),
        ({"name": "divergence_decoding", "without": "folder"}, "given together with without"),
        ({"name": "uld", "retain_weight": -1}, "retain_weight of uld"),
        ({"name": "harry_potter", "steps": 0}, "steps of harry_potter"),
        ({"name": "in_context", "share": 1.0}, "share of in_context"),
        ({"name": "in_context", "forget": 0, "retain": 0}, "where there is no instruction"),
        ({"name": "prompt_guard", "false_alarms": 1.5}, "0 to 1"),
        ({"name": "steering", "layer": 1.5}, "layer of steering"),
        ({"name": "steering", "mode": "turn"}, "'project' or 'add'"),
    ],
)
def test_arguments_that_the_formula_cannot_be_computed_with(spec, message):
    with pytest.raises(ValueError, match=message):
        suppressed(spec)


def test_what_it_is_not_done_to(tmp_path):
    with pytest.raises(ValueError, match="for the suppression uld"):
        suppressed("uld", data={"forget": planted_rows()["forget"]})
    with pytest.raises(ValueError, match="both in the forget and in the retain set"):
        suppressed("uld", data=planted_data() | {"retain": planted_rows()["forget"][:3]})
    with pytest.raises(ValueError, match="suppressed already"):
        suppressed("steering", model_with("steering"))
    with pytest.raises(ValueError, match="Got: a str"):
        suppressed("steering", "model")
    with pytest.raises(ValueError, match="a layer of at most 2"):
        suppressed(Steering(layer=5))
    with pytest.raises(ValueError, match="hidden size 8, not 64"):
        fitted("steering").suppressor.install(LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=270)))
    with pytest.raises(ValueError, match="270 tokens, not 261"):
        fitted("ngram").suppressor.install(LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=270)))
    quantised = planted_model()
    quantised.is_quantized = True
    with pytest.raises(ValueError, match="quantised weights"):
        suppressed(PromptGuard(), quantised)
    with pytest.raises(ValueError, match="answers are suppressed at inference"):
        edited(Nothing(), model_with("steering"))
    with pytest.raises(ValueError, match="to hold a suppressor"):
        load_suppressor(tmp_path)
    fitted("ngram").suppressor.save(tmp_path)
    (tmp_path / "suppressor.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="to hold a suppressor"):
        load_suppressor(tmp_path)


def test_a_run_with_a_suppressor_in_its_folder_is_loaded_with_it(tmp_path):
    model, ids = planted_model(), planted_rows()["forget"][0]["input_ids"]
    model.save_pretrained(tmp_path)
    parsed = SimpleNamespace(args=SimpleNamespace(init_kwargs={}), model=SimpleNamespace(model_name_or_path="other"))
    assert torch.equal(logits_of(load_saved(str(tmp_path), parsed), ids), logits_of(model, ids))
    fitted("ngram").suppressor.save(tmp_path / SUPPRESSION_FOLDER)
    assert torch.equal(logits_of(load_saved(str(tmp_path), parsed), ids), logits_of(model_with("ngram"), ids))
    with pytest.raises(ValueError, match="the weights still know the rows, and would be pushed"):
        pushable_files(tmp_path)
    (tmp_path / SUPPRESSION_FOLDER / "suppressor.json").write_text("{}")
    with pytest.raises(ValueError, match="the model would answer by its weights"):
        load_saved(str(tmp_path), parsed)


def test_a_failed_suppression_leaves_the_model_alone(monkeypatch):
    model, ids = planted_model(), planted_rows()["forget"][0]["input_ids"]
    before = logits_of(model, ids)
    monkeypatch.setattr(InContext.fitted, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        suppressed(InContext(), model)
    assert torch.equal(logits_of(model, ids), before)
    assert suppressed(DivergenceDecoding(), model).suppressed.forget > 1
