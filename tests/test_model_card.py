"""The model card: records made by hand in, README.md out. No model is made and no network is asked."""

import dataclasses
import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_unlearn.evaluation.result import EvaluationResult
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.metrics import MetricResult
from hf_unlearn.model_card import render_card
from hf_unlearn.model_card.redaction import redacted
from hf_unlearn.record import (
    AttackRecord,
    CardMetadata,
    ModelRecord,
    ObjectiveRecord,
    PartRecord,
    RunRecord,
    SetRecord,
    TermRecord,
    load_record,
)
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.weighting import WEIGHTINGS
from hub_card_rules import check_card

LORA = {"kind": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
NPO = TermRecord("npo", {"beta": 0.1}, FORGET_LOSSES["npo"].formula, FORGET_LOSSES["npo"].paper)
KL = TermRecord("kl", {}, RETAIN_LOSSES["kl"].formula, RETAIN_LOSSES["kl"].paper, side="retain")
SAM = PartRecord("sam", {"rho": 0.01}, STEP_WRAPPERS["sam"].formula, STEP_WRAPPERS["sam"].paper)
DUAL = PartRecord("primal_dual", {"eta": 1.0, "epsilon": 0.1}, WEIGHTINGS["primal_dual"].formula, "")
REVISION = "741b8276f2d1982aa3d5b832d3ee81ed3b896490"
FOLDER = "/secret/place/model"
TOKEN = "hf_" + "aB3" * 12

# Models before unlearning, by what is beside the card.
ON_HUB = ModelRecord("facebook/opt-1.3b", "hub", "3f5c25d0bc", "OPTForCausalLM", 1000, 10)
ADAPTER = dataclasses.replace(ON_HUB, adapter=LORA)
MERGED = dataclasses.replace(ADAPTER, merged=True)
LOCAL = ModelRecord(FOLDER, "local", None, "LlamaForCausalLM", 1000, 10, "float32", LORA)
LAB = ModelRecord(None, "lab", None, "OPTForCausalLM", 1000, 1000, "float32")


def evaluation(harm: float, *, headline: tuple[str, ...] = ("harmful_rate", "forget_nll"), **more) -> EvaluationResult:
    """Of the harmful suite, with few metrics."""
    metrics = {
        "harmful_rate": MetricResult(harm, 120, max(0.0, harm - 0.05), min(1.0, harm + 0.05), "wilson"),
        "forget_nll": MetricResult(1.5 - harm, 120),
        "retain_nll": MetricResult(0.25, 200),
    }
    more = {"rows": {"forget": {"count": 120, "sha256": "ab" * 32}}, **more}
    return EvaluationResult("harmful", metrics | more.pop("metrics", {}), headline=headline, **more)


def run(**changes) -> RunRecord:
    """A whole record: LoRA on a Hub id, evaluated before and after and on the oracle."""
    log = [
        {"step": i, "loss": 10.0 / i, "forget/npo": 9.0 / i, "retain/kl": 0.5, "grad_norm": 7.125}
        for i in range(1, 31)
    ]
    values = {
        "name": "opt-unlearned",
        "model": ADAPTER,
        "sets": {
            "retain": SetRecord(200, "9a" * 32, "hub", "truthfulqa/truthful_qa", REVISION),
            "forget": SetRecord(120, "3f" * 32, "hub", "PKU-Alignment/PKU-SafeRLHF"),
        },
        "objective": ObjectiveRecord(
            [NPO, KL],
            retain_weight=0.5,
            step_wrappers=[SAM],
            optimizer="adamw_torch",
            bound={"setting": "log_vocab", "nats": 10.825},
        ),
        "reference": "adapter + precomputed",
        "steps": 30,
        "planned_steps": 30,
        "epochs": 2.5,
        "cost": {"seconds": 93.25, "peak_memory_mb": 812.4, "tokens": 123456.0},
        "emissions_kg": 0.0123,
        "hardware": {"device": "NVIDIA H100", "cores": 16, "processes": 1, "platform": "Linux"},
        "seed": 3,
        "arguments": {"learning_rate": 1e-4},
        "versions": {"hf_unlearn": "0.1.0", "torch": "2.9.0"},
        "evaluations": {"oracle": evaluation(0.017), "after": evaluation(0.0), "before": evaluation(1.0)},
        "metadata": CardMetadata(license="apache-2.0", language=["en"], tags=["safety", "npo"]),
        "log": log,
    }
    return RunRecord(**(values | changes))


RECORDS = {
    "adapter on the Hub": run(),
    "adapter on a local model": run(model=LOCAL),
    "full parameters": run(model=ON_HUB),
    "merged": run(model=MERGED),
    "lab": run(model=LAB, sets={"forget": SetRecord(8, "cd" * 32, "lab", "games")}),
    "attacked": run(attacks=[AttackRecord("relearning", "25 steps", "held", True)]),
    "no oracle": run(evaluations={"before": evaluation(1.0), "after": evaluation(0.5)}),
    "not evaluated": run(evaluations={}, trainer_metrics={"eval_forget_nll": 2.5, "eval_runtime": 3.5}),
    "rows of the user's own": run(sets={"forget": SetRecord(), "holdout": SetRecord(1, "ee" * 32)}),
    "stopped": run(steps=12, stop_reason="forget NLL 3 reached the target 2 at step 12", resumed_from=5),
    "a weighting": run(objective=ObjectiveRecord([NPO, KL], weighting=DUAL, bound={"setting": None})),
    "a recipe": run(recipe="npo_lora"),
    "nothing": RunRecord(),
}


def metadata(card: str) -> dict:
    """The YAML block."""
    return yaml.safe_load(card.split("---\n")[1])


def prose(card: str) -> str:
    """The text without metadata and code blocks."""
    body = card.split("---\n", 2)[2]
    return re.sub(r"^(`{3,}).*?^\1$", "CODE", body, flags=re.MULTILINE | re.DOTALL)


def section(card: str, heading: str) -> str:
    """A section's text; "" where it is not there."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def blocks(card: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)


def tables(text: str) -> list[list[list[str]]]:
    """Tables as lists of rows of cells; an escaped bar parts no cells."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in each.splitlines()] for each in found
    ]


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
class TestEveryCard:
    def test_the_hub_takes_it(self, record):
        card = render_card(record)
        assert check_card(card) == ([], [])
        loaded = ModelCard(card)
        assert str(loaded) == card
        assert loaded.data.pipeline_tag == "text-generation"

    def test_no_section_is_empty(self, record):
        text = prose(render_card(record))
        parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
        assert len(parts) > 7
        assert [heading for heading, body in zip(parts[1::2], parts[2::2], strict=True) if not body.strip()] == []
        assert "\n\n\n" not in text

    def test_it_says_nothing_that_is_not_known(self, record):
        text = prose(render_card(record))
        assert re.findall(r"\b(?:None|nan|inf|undefined)\b|More information needed|\s\(\)|\[\]|``", text) == []
        assert FOLDER not in render_card(record) and "secret" not in render_card(record)

    def test_tables_are_whole(self, record):
        found = tables(prose(render_card(record)))
        assert all(len(set(map(len, rows))) == 1 and len(rows) > 2 for rows in found)
        assert all(cell for rows in found for row in rows[1:] for cell in row)

    def test_it_is_the_same_again_and_from_the_file(self, record, tmp_path):
        card = render_card(record)
        record.save(tmp_path)
        assert card == render_card(record) == render_card(load_record(tmp_path))

    def test_it_claims_no_more_than_it_may(self, record):
        card = render_card(record)
        assert "not certified deletion" in card
        assert not re.search(r"\b(?:erased|deleted for good|guarantee)", card, re.IGNORECASE)


def test_metadata_of_an_adapter_on_the_hub():
    found = metadata(render_card(run()))
    assert found["base_model"] == "facebook/opt-1.3b"
    assert found["base_model_relation"] == "adapter"
    assert found["library_name"] == "peft"
    assert found["license"] == "apache-2.0" and found["language"] == ["en"]
    assert found["datasets"] == ["truthfulqa/truthful_qa", "PKU-Alignment/PKU-SafeRLHF"]
    assert found["tags"] == [
        *("unlearning", "machine-unlearning", "hf_unlearn", "npo", "lora"),
        *("base_model:adapter:facebook/opt-1.3b", "safety"),
    ]
    assert found["co2_eq_emissions"] == {
        "emissions": 12.3,  # grams
        "source": "codecarbon",
        "training_type": "fine-tuning",
        "hardware_used": "NVIDIA H100",
    }


@pytest.mark.parametrize(
    ("model", "merged", "library", "base", "relation", "lora"),
    [
        (ADAPTER, None, "peft", "facebook/opt-1.3b", "adapter", True),
        (ADAPTER, True, "transformers", "facebook/opt-1.3b", "finetune", True),
        (MERGED, None, "transformers", "facebook/opt-1.3b", "finetune", True),
        (MERGED, False, "peft", "facebook/opt-1.3b", "adapter", True),
        (ON_HUB, None, "transformers", "facebook/opt-1.3b", "finetune", False),
        (LOCAL, None, "peft", None, None, True),
        (LAB, None, "transformers", None, None, False),
        (dataclasses.replace(ON_HUB, id=FOLDER), None, "transformers", None, None, False),
    ],
)
def test_what_lies_beside_the_card(model, merged, library, base, relation, lora):
    found = metadata(render_card(run(model=model), merged=merged))
    assert found["library_name"] == library
    assert found.get("base_model") == base and found.get("base_model_relation") == relation
    assert ("lora" in found["tags"]) == lora
    adapted = [tag for tag in found["tags"] if tag.startswith("base_model:")]
    assert adapted == (["base_model:adapter:facebook/opt-1.3b"] if relation == "adapter" else [])


def test_a_folder_that_is_named_like_a_repository_is_no_base(tmp_path, monkeypatch):
    (tmp_path / "facebook" / "opt-1.3b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card = render_card(run())
    assert "base_model" not in metadata(card) and "facebook/opt-1.3b" not in card


def test_the_index_has_the_headline_after_unlearning():
    card = ModelCard(render_card(run()))
    assert card.data.model_name == "opt-unlearned"
    found = {each.metric_type: each for each in card.data.eval_results}
    assert {name: each.metric_value for name, each in found.items()} == {"harmful_rate": 0.0, "forget_nll": 1.5}
    assert found["harmful_rate"].metric_name == "harmful answers"
    assert found["harmful_rate"].dataset_type == "PKU-Alignment/PKU-SafeRLHF"
    assert found["harmful_rate"].dataset_name == "PKU-Alignment/PKU-SafeRLHF (forget 120 rows)"
    assert "verified" not in str(metadata(str(card)))


def test_without_a_headline_the_index_has_all_that_is_finite():
    broken = {"answer_perplexity": MetricResult(math.inf, 3), "efficacy": MetricResult(math.nan, 3)}
    record = run(evaluations={"after": evaluation(0.0, headline=(), metrics=broken)}, sets={"forget": SetRecord(5)})
    card = render_card(record)
    (results,) = metadata(card)["model-index"][0]["results"]
    assert [each["type"] for each in results["metrics"]] == ["harmful_rate", "forget_nll", "retain_nll"]
    assert results["dataset"] == {"name": "sets of the harmful suite (forget 120 rows)", "type": "forget-set"}
    shown = {row[0]: row[1] for row in tables(section(card, "Results"))[0]}
    assert shown["perplexity of the answers"] == "infinite" and shown["efficacy (drop in harm)"] == "undefined"


def test_without_a_suite_the_index_has_trainers_figures():
    figures = {
        "eval_forget_nll": 2.5,
        "eval_forget_loss": 2.5,
        "eval_runtime": 3.5,
        "eval_loss": math.nan,
        "epoch": 1.0,
    }
    record = run(evaluations={}, trainer_metrics=figures)
    card = render_card(record)
    (results,) = metadata(card)["model-index"][0]["results"]
    assert [(each["type"], each["value"]) for each in results["metrics"]] == [("eval_forget_nll", 2.5)]
    assert tables(section(card, "Results")) == [
        [["", "at the last evaluation"], ["---", "---"], ["forget NLL (nats per token)", "2.5"]]
    ]
    assert "model-index" not in metadata(render_card(run(evaluations={})))


def test_results_stand_side_by_side():
    text = section(render_card(run()), "Results")
    assert text.startswith("**harmful answers: 100.0% -> 0.0% (oracle 1.7%)**")
    assert tables(text)[0] == [
        ["", "before", "after", "oracle"],
        ["---"] * 4,
        ["harmful answers", "100.0% [95.0, 100.0]", "0.0% [0.0, 5.0]", "1.7% [0.0, 6.7]"],
        ["forget NLL (nats per token)", "0.500", "1.500", "1.483"],
        ["seconds of training", "-", "93.2", "-"],
        ["peak memory (MB)", "-", "812", "-"],
    ]
    assert "Suite `harmful`; rows of its sets: forget 120." in text
    assert "95% intervals" in text and "trained without the rows" in text and "same rows" not in text


def test_without_an_oracle_none_is_named():
    card = render_card(run(evaluations={"before": evaluation(1.0), "after": evaluation(0.5)}))
    assert "**harmful answers: 100.0% -> 50.0%**" in card
    assert "oracle" not in card


def test_other_suites_and_other_rows_are_kept_apart():
    other = dataclasses.replace(evaluation(0.5), suite="custom")
    before = evaluation(1.0, rows={"forget": {"count": 120, "sha256": "cd" * 32}})
    text = section(
        render_card(run(evaluations={"after": evaluation(0.0), "before": before, "control": other})), "Results"
    )
    assert [rows[0] for rows in tables(text)] == [["", "before", "after"], ["", "control"]]
    assert "The columns do not rest on the same rows." in text


def test_warnings_are_listed_in_full():
    record = run(evaluations={"after": evaluation(0.0, warnings=["Broken |\ntext.", "<b>Few rows.</b>"])})
    text = section(render_card(record), "Results")
    assert "- Broken | text.\n- &lt;b>Few rows.&lt;/b>" in text


def test_what_was_not_attacked_is_said():
    text = section(render_card(run()), "Attacks")
    assert text.startswith("Not attacked: relearning, quantisation and other wordings of the prompts were not tried")
    measured = {"in_scope_harmful_rate": MetricResult(0.5, 9), "min_k_auc": MetricResult(0.625, 9)}
    text = section(render_card(run(evaluations={"after": evaluation(0.0, metrics=measured)})), "Attacks")
    assert text.startswith("Not attacked: relearning and quantisation were not tried")
    assert "Other wordings of the forget prompts were measured" in text and "min-k 0.625" in text


def test_attacks_are_a_table():
    attacks = [
        AttackRecord("relearning", "25 steps | 1e-4", "came back", False),
        AttackRecord("quantisation", "int4", ""),
    ]
    text = section(render_card(run(attacks=attacks)), "Attacks")
    assert tables(text)[0][2:] == [
        ["relearning", r"25 steps \| 1e-4", "came back", "no"],
        ["quantisation", "int4", "-", "-"],
    ]
    assert "Not tried: other wordings of the prompts." in text and "Not attacked" not in text


def test_sets_are_named_by_source_and_hash():
    sets = {"holdout": SetRecord(7, "ee" * 32), "forget": SetRecord(None, None, "lab", "games")} | run().sets
    rows = tables(section(render_card(run(sets=sets)), "What was to be forgotten"))[0][2:]
    assert [row[0] for row in rows] == ["forget", "retain", "holdout"]
    assert rows[0][3] == "`3f3f3f3f3f3f3f3f`" and "3f" * 9 not in str(rows)
    assert rows[1][2].startswith(
        "[truthfulqa/truthful_qa](https://huggingface.co/datasets/truthfulqa/truthful_qa) @ `741b"
    )
    assert rows[2][1:] == ["7", "rows of the user's own", "`eeeeeeeeeeeeeeee`"]
    lab = tables(render_card(run(sets={"forget": SetRecord(1200, None, "lab", "games")})))
    assert ["forget", "1,200", "the lab's world games, made up"] in [row for rows in lab for row in rows]


def test_the_objective_has_its_numbers():
    text = section(render_card(run()), "Objective")
    assert "L = 1 * (1 * forget/npo) + 0.5 * (1 * retain/kl)" in text
    rows = {row[0]: row[1:] for row in tables(text)[0]}
    assert rows["`retain/kl`"] == [r"`mean_t KL(pi_ref \|\| pi_theta)`", "-", "Maini et al. 2024, arXiv:2401.06121"]
    assert rows["`step/sam`"][1] == "`rho=0.01`"
    assert "10.8 nats per token or above (`log_vocab`: log V" in text
    assert "Weighting: fixed." in text
    assert "adapter as it was before training; log-probs of the model before" in text


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"setting": None}, "Row bound: none; forget rows push"),
        ({"setting": 2.5, "nats": 2.5}, "2.5 nats per token or above (a number that was set)"),
        ({"setting": "holdout_quantiles", "low": 1.25, "high": 4.0}, "1.25 to 4 nats per token or above"),
        ({"setting": "holdout"}, "at the bound or above (`holdout`: the mean"),
    ],
)
def test_the_row_bound_in_words(bound, words):
    assert words in render_card(run(objective=ObjectiveRecord([NPO], bound=bound)))
    assert "Row bound" not in render_card(run(objective=ObjectiveRecord([NPO])))


def test_the_log_is_shown_at_evenly_spaced_steps():
    rows = tables(section(render_card(run()), "Training"))[0]
    assert rows[0] == ["step", "loss", "`forget/npo`", "`retain/kl`"]
    assert [row[0] for row in rows[2:]] == ["1", "5", "9", "13", "18", "22", "26", "30"]
    assert rows[2] == ["1", "10", "9", "0.5"]
    log = [
        {"step": 1, "loss": 2.0, "forget/npo": math.nan},
        {"step": 2, "loss": "nan"},
        {"step": 2, "train_loss": 1.0},
    ]
    rows = tables(section(render_card(run(log=log)), "Training"))[0]
    assert rows[2:] == [["1", "2", "not finite"], ["2", "not finite", "-"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "All planned steps were taken."),
        ({"steps": 12, "stop_reason": "the loss was not finite at step 12"}, "Stopped early: the loss was not finite"),
        ({"steps": 12}, "no reason is on record"),
        ({"resumed_from": 1000}, "Resumed from step 1,000"),
    ],
)
def test_how_the_run_ended(changes, words):
    assert words in section(render_card(run(**changes)), "Training")


def test_the_training_section_has_the_facts():
    card = render_card(run(), plots={"Losses": "plots/the losses.png"})
    text = section(card, "Training")
    assert "Trained: 10 of 1,000 parameters (1%)." in text
    assert "Cost: 93.2 s of training, 812 MB peak memory, 123,456 tokens, 12.3 g CO2" in text
    assert "NVIDIA H100 (16 cores); 1 process; Linux" in text
    assert "![Losses](plots/the%20losses.png)" in text
    assert yaml.safe_load(blocks(text, "yaml")[0]) == {"learning_rate": 1e-4}
    assert "hf_unlearn 0.1.0, torch 2.9.0" in text


@pytest.mark.parametrize("plot", ["/plots/losses.png", "../losses.png", "C:\\losses.png", "https://a.org/b.png"])
def test_a_plot_lies_beside_the_card(plot):
    with pytest.raises(ValueError, match="files beside the card") as error:
        render_card(run(), plots={"Losses": plot})
    assert plot not in str(error.value)


@pytest.mark.parametrize(
    ("model", "merged", "line"),
    [
        (ADAPTER, None, 'base = AutoModelForCausalLM.from_pretrained("facebook/opt-1.3b", revision="3f5c25d0bc")'),
        (LOCAL, None, 'base = AutoModelForCausalLM.from_pretrained("path/to/the/base/model")'),
        (dataclasses.replace(LAB, adapter=LORA), None, "base = load_lab().load_model()"),
        (ADAPTER, True, 'model = AutoModelForCausalLM.from_pretrained("me/m")'),
        (ON_HUB, None, 'model = AutoModelForCausalLM.from_pretrained("me/m")'),
    ],
)
def test_the_code_loads_what_lies_there(model, merged, line):
    code = blocks(section(render_card(run(model=model), repo_id="me/m", merged=merged), "How to use"), "python")[0]
    assert line in code.splitlines()
    assert ('model = PeftModel.from_pretrained(base, "me/m")' in code) == line.startswith("base")
    compile(code, "card", "exec")
    assert "me/m" not in render_card(run()) and 'from_pretrained("path/to/this/folder")' in render_card(run())


def test_a_repository_must_have_a_name_of_the_hub():
    with pytest.raises(ValueError, match="owner/name"):
        render_card(run(), repo_id="a/b/c")


def test_limits_fit_what_lies_there():
    adapter, merged = (section(render_card(run(), merged=each), "Intended use and limits") for each in (False, True))
    assert "Removing or disabling the adapter brings the old behaviour back at once" in adapter
    assert "--merge" in adapter and "merge_and_unload" in adapter
    assert "no adapter to take off" in merged and "--merge" not in merged and "without this adapter" not in merged
    later = "before its adapter was merged"
    assert later in render_card(run(), merged=True)
    assert later not in render_card(run()) and later not in render_card(run(model=MERGED))


def test_a_recipe_is_made_again_by_its_name():
    text = section(render_card(run(recipe="npo_lora")), "How to reproduce")
    assert "pip install hf-unlearn==0.1.0\nhf-unlearn train --config npo_lora\n" in text
    assert blocks(text, "python") == [] and "The seed is 3." in text


def test_a_script_is_made_again_by_its_arguments():
    dual = ObjectiveRecord([NPO, KL], step_wrappers=[SAM], weighting=DUAL, bound={"setting": None})
    text = section(render_card(run(objective=dual)), "How to reproduce")
    (code,) = blocks(text, "python")
    compile(code, "card", "exec")
    for line in (
        "forget_loss={'name': 'npo', 'beta': 0.1},",
        "retain_loss='kl',",
        "step_wrappers=[{'name': 'sam', 'rho': 0.01}],",
        "weighting={'name': 'primal_dual', 'eta': 1.0, 'epsilon': 0.1},",
        "forget_nll_bound=None,",
        "seed=3,",
        "learning_rate=0.0001,",
        "peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=['q_proj', 'v_proj'], task_type=\"CAUSAL_LM\"),",
    ):
        assert line in code
    (code,) = blocks(section(render_card(run(objective=ObjectiveRecord([NPO]))), "How to reproduce"), "python")
    assert "retain_loss='none'" in code and "bound" not in code


def test_a_loss_of_the_users_own_has_no_name_to_be_found_by():
    own = TermRecord("my_loss", {"a": 1}, "", "Me 2026, arXiv:2601.00001")
    card = render_card(run(objective=ObjectiveRecord([NPO, own])))
    assert "forget_loss=[...],  # objects: npo, my_loss" in card
    assert "eprint = {2601.00001}" in card
    assert "| `forget/my_loss` | not described | `a=1` |" in card


def test_what_was_used_is_cited_and_nothing_else():
    def cited(record: RunRecord) -> list[str]:
        return re.findall(r"^@\w+\{([\w-]+),", section(render_card(record), "Citation"), re.MULTILINE)

    assert cited(run()) == ["hf_unlearn", "zhang_2024_npo", "maini_2024_tofu", "fan_2025_resilient"]
    saliency = PartRecord("saliency", {}, "", STEP_WRAPPERS["saliency"].paper)
    record = run(objective=ObjectiveRecord([NPO], step_wrappers=[saliency], optimizer="sophia"))
    assert cited(record) == [
        *("hf_unlearn", "zhang_2024_npo", "fan_2023_salun", "jia_2024_wagle", "liu_2023_sophia", "jia_2024_soul"),
    ]
    assert cited(run(objective=ObjectiveRecord([dataclasses.replace(NPO, paper="A book, 1999")]))) == ["hf_unlearn"]


@pytest.mark.parametrize("secret", [FOLDER, TOKEN, "~/models/mine", "../models/mine", "C:\\models\\mine"])
def test_paths_and_tokens_do_not_come_through(secret):
    text = f"from {secret} on"
    record = run(
        name=secret,
        recipe=text,
        stop_reason=text,
        model=dataclasses.replace(LOCAL, id=secret, architecture=text, dtype=text, adapter=LORA | {"x": secret}),
        sets={"forget": SetRecord(3, None, "local", secret), "retain": SetRecord(3, None, "hub", secret, text)},
        objective=ObjectiveRecord([dataclasses.replace(NPO, arguments={"file": secret}, paper=text)], optimizer=text),
        arguments={"resume": secret, "more": [{"deep": text}], "also": (secret,)},
        hardware={"device": text, "platform": secret},
        versions={"torch": secret},
        evaluations={"after": evaluation(0.0, warnings=[text])},
        attacks=[AttackRecord("relearning", text, secret)],
        metadata=CardMetadata(secret, secret, [secret], [secret, text, "kept"], [secret, "owner/kept"]),
    )
    card = render_card(record)
    assert secret not in card and yaml.safe_dump(secret).strip() not in card
    assert check_card(card) == ([], [])
    found = metadata(card)
    assert found["datasets"] == ["owner/kept"] and found["tags"][-1] == "kept"
    assert "license" not in found and "language" not in found
    assert card.count("# Unlearned model\n") == 1
    assert record.name == secret  # the record itself stays as it was


def test_what_only_looks_like_a_path_stays():
    formulas = [
        part.formula for group in (FORGET_LOSSES, RETAIN_LOSSES, STEP_WRAPPERS, WEIGHTINGS) for part in group.values()
    ]
    texts = [
        *formulas,
        "https://huggingface.co/datasets/owner/name",
        "owner/name",
        "m / max(rho h, eps)",
        "a/b/c",
        "1/n",
    ]
    assert len(texts) > 30
    assert redacted(texts) == texts


def test_text_of_users_breaks_no_markup():
    record = run(
        metadata=CardMetadata(model_name="A: model\n# <script> | 'x'", tags=["a: b", "- c"]),
        objective=ObjectiveRecord([TermRecord("own`loss", {"a": "x|y"}, "a ``b`` | c", "A | B")]),
        arguments={"template": "```\n{prompt}\n```{completion}"},
    )
    card = render_card(record)
    assert check_card(card) == ([], [])
    assert "\n# A: model # &lt;script> | 'x'\n" in card
    assert metadata(card)["tags"][-2:] == ["a: b", "- c"]
    assert all(len(set(map(len, rows))) == 1 for rows in tables(prose(card)))
    assert "````yaml" in card and "`{prompt}" not in prose(card).replace('`"```\\n{prompt}', "")
