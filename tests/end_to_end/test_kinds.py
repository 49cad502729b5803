"""`hf-unlearn train`, `evaluate`, `report`, `push --dry-run` on models and rows of eight kinds. No Hub."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoConfig

from end_to_end.cases import CASES, WINDOW, Case, save_known
from fixtures.examples import figures, results, rows_evaluated, rows_of, written
from hf_unlearn.cli import main
from hf_unlearn.results.report.figures import Plot

pytestmark = pytest.mark.slow

STEPS = 3
ARGUMENTS = ["--forget_loss", "npo", "--retain_loss", "nll", "--forget_nll_bound", "none", "--learning_rate", "4e-3"]
ARGUMENTS += [
    "--max_steps",
    str(STEPS),
    "--lr_scheduler_type",
    "constant",
    "--per_device_train_batch_size",
    "3",
    "--logging_steps",
    "1",
    "--use_cpu",
]
ARGUMENTS += ["--max_new_tokens", "96", "--save_strategy", "no", "--report_to", "none"]
# The losses and models of these have the plots that there are; the others would draw the same again.
DRAWN = ("right_to_left", "moe")


@dataclass
class Ended:
    """What the three commands left behind."""

    case: Case
    folder: Path
    record: dict
    again: dict  # what `evaluate` measured on the saved model
    dry: dict
    printed: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory, request) -> Ended:
    """The three commands on a case, in this process: one import for all of them."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    words = save_known(case, folder)
    if case.template_arguments:
        words += ["--chat_template_kwargs", json.dumps(case.template_arguments)]
    words += ["--task", "custom", *ARGUMENTS, *case.arguments, "--output_dir", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        if request.param not in DRAWN:
            patch.setattr("hf_unlearn.results.report.plots.save_plot", plot_in_words)
            patch.setattr("hf_unlearn.results.report.sections.inline_svg", lambda panel, prefix: panel.summary)
        trained = said("train", *words)
        record = results(folder / "run")
        again = said("evaluate", *words, "--name", "again", "--json")
        dry = said("push", str(folder / "run"), "tester/model", "--dry-run", "--json")
        report = said("report", str(folder / "run"))
    printed = trained + "".join(again) + "".join(dry) + report
    return Ended(case, folder / "run", record, json.loads(again), json.loads(dry), printed)


def plot_in_words(plot: Plot, folder: Path) -> Path:
    """What a plot shows, as a file of its name: to draw it takes longer than the run that it shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".svg", ".png"):
        words = [plot.title, plot.caption, *(panel.summary for panel in plot.panels)]
        (folder / plot.name).with_suffix(suffix).write_text("\n".join(words), encoding="utf-8")
    return folder / f"{plot.name}.png"


def said(*words: str) -> str:
    """What a command prints, which ends well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*words]) == 0
    return out.getvalue()


every_case = pytest.mark.parametrize("ended", CASES, indirect=True)


def one_case(name: str) -> pytest.MarkDecorator:
    """The run of one case, the same as that of `every_case`."""
    return pytest.mark.parametrize("ended", [name], indirect=True)


@every_case
def test_what_was_known_is_forgotten_and_the_rest_is_kept(ended):
    before, after = (figures(ended.record)[name] for name in ("before", "after"))
    assert rows_of(ended.record) == rows_evaluated(ended.record) == {"forget": 3, "retain": 3}
    # Known to the last token: rows are rendered for training as the model has learnt them.
    assert before["forget_nll"] < 0.1 and before["retain_nll"] < 0.1
    assert before["forget_accuracy"] == before["retain_accuracy"] == 1.0
    assert before["forget_rouge"] == before["retain_rouge"] == pytest.approx(1.0)
    assert after["forget_nll"] > before["forget_nll"] + 0.05
    assert after["retain_nll"] - before["retain_nll"] < after["forget_nll"] - before["forget_nll"]
    logs = [entry for entry in ended.record["log"] if "loss" in entry]
    assert [entry["step"] for entry in logs] == [1, 2, 3] and all(entry["grad_norm"] > 1e-4 for entry in logs)
    assert logs[0]["forget_nll"] == pytest.approx(before["forget_nll"], abs=2e-3)


@every_case
def test_the_saved_model_is_measured_as_the_trained_one_was(ended):
    after = figures(ended.record)["after"]
    again = {name: metric["value"] for name, metric in ended.again["metrics"].items()}
    assert {name: again[name] for name in ("forget_accuracy", "retain_accuracy", "forget_rouge", "retain_rouge")} == {
        name: after[name] for name in ("forget_accuracy", "retain_accuracy", "forget_rouge", "retain_rouge")
    }
    for name in ("forget_nll", "retain_nll"):
        assert again[name] == pytest.approx(after[name], rel=1e-4, abs=1e-6)


@every_case
def test_a_push_would_send_model_card_and_record(ended):
    lora = "--use_peft" in ended.case.arguments
    weights = {"adapter_config.json", "adapter_model.safetensors"} if lora else {"config.json", "model.safetensors"}
    assert weights | {"README.md", "results.json", "tokenizer.json"} <= set(ended.dry["files"])
    assert not [name for name in ended.dry["files"] if name.endswith((".bin", ".pt", ".jsonl"))]
    card = (ended.folder / "README.md").read_text(encoding="utf-8")
    assert "forget NLL" in card and "**Verdict: " in card
    assert "forget NLL" in (ended.folder / "report.html").read_text(encoding="utf-8")


@every_case
def test_no_word_of_the_forget_rows_is_written_or_printed(ended):
    everything = written(ended.folder) + ended.printed
    assert "forget_nll" in everything
    for secret in ended.case.secrets:
        for text in (secret, json.dumps(secret).strip('"')):
            assert text not in everything


# What is particular to a kind


@one_case("moe")
def test_the_router_loss_of_experts_is_logged(ended):
    logs = [entry for entry in ended.record["log"] if "loss" in entry]
    values = [value for entry in logs for name, value in entry.items() if "router" in name]
    assert len(values) == STEPS and all(value > 0 for value in values)


@one_case("soft_capped")
def test_soft_caps_are_those_of_the_model_after_the_run(ended):
    saved = AutoConfig.from_pretrained(ended.folder)
    assert (saved.attn_logit_softcapping, saved.final_logit_softcapping) == (5.0, 8.0)


@one_case("sliding_window")
def test_rows_are_longer_than_the_window(ended):
    scored = json.loads((ended.folder / "evaluation_before.json").read_text(encoding="utf-8"))
    assert scored["rows"]["forget"]["count"] == 3
    assert min(len(row["prompt"] + row["completion"]) for row in ended.case.rows["forget"]) > 2 * WINDOW


@one_case("thinking")
def test_the_empty_thought_is_no_part_of_the_answer(ended):
    """What is counted as answer is what the model was asked to say, and the end of its turn."""
    answers = [row["messages"][-1]["content"] for row in ended.case.rows["forget"]]
    rows, model = ended.folder.parent / "forget.jsonl", ended.folder.parent / "model"
    kwargs = json.dumps(ended.case.template_arguments)
    shown = said("show", str(rows), "--model", str(model), "--chat_template_kwargs", kwargs)
    assert f" {sum(len(answer.encode()) + 1 for answer in answers)} of them trained" in shown
