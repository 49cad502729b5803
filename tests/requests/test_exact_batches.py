"""The exact ways of a batch leave the weights of a training without the rows, and can be begun again. Tiny models."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures.logged import ROWS, logged, make, rows_of, same, weights
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.state import DONE
from hf_unlearn.tasks.request_batches import add_request, carry_out, open_ledger
from hf_unlearn.tasks.request_batches.exact import Logged, named_function
from hf_unlearn.unlearnable import UnlearnableCallback, load_cohorts, replay, train_cohorts
from unlearnable.test_cohorts import INPUTS, PEOPLE, Cohorts


def lines(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def opened(folder: Path, model: str) -> Ledger:
    kept = lines(folder / "retain.jsonl", rows_of("sft"))
    return open_ledger(folder / "ledger", ["--model_name_or_path", model, "--retain_dataset", str(kept), "--use_cpu"])


def saved(folder: Path) -> str:
    tiny_model("opt", dropout=0.1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_replay_leaves_the_weights_of_a_training_without_the_rows(tmp_path, monkeypatch):
    trained = logged("sft", tmp_path)
    trained.save_model(str(tmp_path / "model"))
    ledger, rows = opened(tmp_path, str(tmp_path / "model")), rows_of("sft")
    add_request(ledger, lines(tmp_path / "one.jsonl", [rows[2], rows[7], {"prompt": "new?", "completion": " no"}]))
    with pytest.raises(ValueError, match="--log with --trainer"):
        carry_out(ledger, way="replay")
    callback = UnlearnableCallback(tmp_path / "log", rows)  # it knows the rows as they were before they were tokens
    again = Logged(tmp_path / "log", lambda output: make("sft", Path(output), [callback]))
    append, killed = Ledger.append, {DONE: lambda *given: 1 / 0}
    monkeypatch.setattr(Ledger, "append", lambda *given: killed.get(given[1], append)(*given))
    with pytest.raises(ZeroDivisionError):
        carry_out(ledger, logged=again)
    monkeypatch.setattr(Ledger, "append", append)
    done = carry_out(ledger, logged=Logged(tmp_path / "log", lambda output: pytest.fail("trained twice")))
    assert (done["way"], done["run"], list(done["weights"])) == ("replay", "001", ["model.safetensors"])
    direct = make("sft", tmp_path / "direct")
    wanted = weights(replay(direct, tmp_path / "log", [rows[2], rows[7]], rows=rows))
    assert same(wanted, dict(AutoModelForCausalLM.from_pretrained(ledger.runs / "001").named_parameters()))
    assert ledger.state().weights == done["weights"] and not list((ledger.runs / "001").glob("checkpoint-*"))
    with pytest.raises(ValueError, match="--trainer as module:function"):
        named_function("fixtures.logged:nothing")


def test_a_dropped_cohort_leaves_the_base_and_the_others(tmp_path):
    train_cohorts(Cohorts(), PEOPLE, "who", tmp_path / "cohorts")
    base = saved(tmp_path / "base")
    ledger = opened(tmp_path, base)
    add_request(ledger, lines(tmp_path / "one.jsonl", rows_of("sft")[1 : len(ROWS) : 3]))
    done = carry_out(ledger, way="drop_cohort", logged=Logged(tmp_path / "cohorts", base=base))
    model = AutoModelForCausalLM.from_pretrained(ledger.runs / done["run"])
    with torch.no_grad():
        left = load_cohorts(tmp_path / "cohorts", tiny_model("opt", dropout=0.1).eval())(INPUTS).logits
        torch.testing.assert_close(model.eval()(INPUTS).logits, left, rtol=1e-4, atol=1e-4)
    assert ledger.state().requests["R-1"].way == "drop_cohort"
