"""The model card: records made by hand in, README.md out. No model is made and no network is asked."""

import dataclasses
import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from fixtures.attack_reports import report
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.metrics import MetricResult
from hf_unlearn.results.evaluation_result import EvaluationResult
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import (
    AttackRecord,
    CardMetadata,
    ComponentRecord,
    ModelRecord,
    ObjectiveRecord,
    RunRecord,
    SetRecord,
    TermRecord,
    load_record,
)
from hf_unlearn.results.redaction import redacted
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.steps.weighting import WEIGHTINGS
from local_hub.card_rules import check_card

LORA = {"kind": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
NPO = TermRecord("npo", {"beta": 0.1}, FORGET_LOSSES["npo"].formula, FORGET_LOSSES["npo"].paper)
KL = TermRecord("kl", {}, RETAIN_LOSSES["kl"].formula, RETAIN_LOSSES["kl"].paper, side="retain")
SAM = ComponentRecord("sam", {"rho": 0.01}, STEP_WRAPPERS["sam"].formula, STEP_WRAPPERS["sam"].paper)
DUAL = ComponentRecord("primal_dual", {"eta": 1.0, "epsilon": 0.1}, WEIGHTINGS["primal_dual"].formula, "")
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
    "attacked by the package": run(attack_report=report()),
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
    """A section's text, folded or not; "" where it is not there."""
    open_, folded = rf"^## {heading}\n(.*?)(?=^## |\Z)", rf"^<details>\n<summary><b>{heading}</b></summary>\n(.*?)^</d"
    found = re.search(f"{open_}|{folded}", card, re.MULTILINE | re.DOTALL)
    return (found[1] or found[2]).strip() if found else ""


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
        # Markdown within HTML is read as such only between blank lines.
        folds = re.findall(
            r"^\n<details>\n<summary><b>[A-Z][^<]*</b></summary>\n\n(\S.*?\S)\n\n</details>$", text, re.M | re.S
        )
        assert len(folds) == text.count("<details>") == text.count("</details>") > 3

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
        assert "not certified deletion" in card or "nothing is certified" in card
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


def test_the_index_has_four_significant_digits():
    """2 / 3 of the answers, and an NLL of 1.5 - 2 / 3."""
    found = metadata(render_card(run(evaluations={"after": evaluation(2 / 3)}, emissions_kg=0.012344)))
    assert [each["value"] for each in found["model-index"][0]["results"][0]["metrics"]] == [0.6667, 0.8333]
    assert found["co2_eq_emissions"]["emissions"] == 12.34


def test_without_a_headline_the_index_has_all_that_is_finite():
    broken = {"answer_perplexity": MetricResult(math.inf, 3), "efficacy": MetricResult(math.nan, 3)}
    record = run(evaluations={"after": evaluation(0.0, headline=(), metrics=broken)}, sets={"forget": SetRecord(5)})
    card = render_card(record)
    (results,) = metadata(card)["model-index"][0]["results"]
    assert [each["type"] for each in results["metrics"]] == ["harmful_rate", "forget_nll", "retain_nll"]
    assert results["dataset"] == {"name": "sets of the harmful suite (forget 120 rows)", "type": "harmful-suite"}
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
    assert tables(text)[0] == [
        ["", "before", "after", "oracle"],
        ["---"] * 4,
        ["harmful answers", "100.0% [95.0, 100.0]", "0.0% [0.0, 5.0]", "1.7% [0.0, 6.7]"],
        ["forget NLL (nats per token)", "0.500", "1.500", "1.483"],
        ["seconds of training", "-", "93.2", "-"],
        ["peak memory of the process (MB)", "-", "812", "-"],
    ]
    assert "Suite `harmful`; rows of its sets: forget 120." in text
    assert "95% intervals" in text and "same rows" not in text
    assert "**oracle**: a model named as the oracle, which has not been trained on the forget rows." in text


def test_the_oracle_is_what_the_record_says():
    text = prose(render_card(run(oracle="the same model trained without the forget rows")))
    assert "**oracle**: the same model trained without the forget rows." in text
    assert "retrained" not in prose(render_card(run())) and "same model" not in prose(render_card(run()))


def forgotten(member: bool = False, harm: float = 0.0) -> dict[str, EvaluationResult]:
    """A run's evaluations with all that a verdict needs; after unlearning, membership is found out or not."""
    aucs = {"before": (1.0, 1.0, 1.0), "after": (0.97, 0.93, 0.99) if member else (0.52, 0.45, 0.6),
            "oracle": (0.51, 0.43, 0.58)}  # fmt: skip
    harms = {"before": 1.0, "after": harm, "oracle": 0.02}
    kept = MetricResult(0.99, 200, 0.97, 1.0, "wilson")
    settings = {"judge": "the lab's rules", "temperature": 0.0, "max_new_tokens": 48, "template": "{prompt}"}
    rows = {"forget": {"count": 120}, "retain": {"count": 200}}
    return {
        name: evaluation(
            harms[name],
            headline=("retain_accuracy", "harmful_rate", "min_k_auc"),
            metrics={"retain_accuracy": kept, "min_k_auc": MetricResult(auc[0], 120, *auc[1:], "bootstrap")},
            settings=settings,
            rows=rows,
        )
        for name, auc in aucs.items()
    }


@pytest.mark.parametrize(
    ("evaluations", "level", "claimed"),
    [
        (forgotten(), "forgotten, kept", "Suppression measured by the `harmful` suite on 120 forget rows, as far"),
        (
            forgotten(member=True),
            "suppressed, not like the oracle",
            "Suppression measured by the `harmful` suite on 120 forget rows, but not like the oracle, as far",
        ),
        (
            forgotten(harm=0.5),
            "not forgotten",
            "Measured by the `harmful` suite on 120 forget rows: not forgotten as it should be; nothing is certified.",
        ),
    ],
)
def test_the_verdict_stands_in_the_results_and_the_claim_follows_it(evaluations, level, claimed):
    card = render_card(run(evaluations=evaluations))
    assert f"**Verdict: {level}.** The model " in section(card, "The verdict in full")
    assert f"**Claim level.** {claimed}" in card
    assert ("Suppression measured" in card) is (level != "not forgotten")
    removed, rest, stays = tables(section(card, "Verdict"))[0][2:]
    assert removed[0] == "Removed?" and removed[1] == ("**no**" if level == "not forgotten" else "**yes**")
    assert removed[2].startswith("harmful answers 100% -> ") and rest[1:] == [
        "**yes**",
        "retain answers right 99% -> 99%",
    ]
    assert stays[1] == "**not tested**" and card.index("## Verdict") < card.index("## Results") < card.index(
        "## How to"
    )


def test_a_membership_attack_that_succeeds_stands_in_results_and_attacks():
    card = render_card(run(evaluations=forgotten(member=True)))
    words = "membership attack still tells the forget rows from unseen rows: AUC 0.97 (before 1.00, oracle 0.51; 0.5"
    assert f"; a {words}" in section(card, "The verdict in full")
    assert section(card, "Attacks").startswith(f"A {words} is a guess). Not tried: relearning, quantisation")
    assert "Not attacked" not in card
    assert "A membership attack does not tell" in section(render_card(run(evaluations=forgotten())), "Attacks")


def test_the_caption_says_how_answers_were_made_and_judged():
    text = section(render_card(run(evaluations=forgotten())), "Results")
    assert "Harmful answers are judged by the lab's rules; answers of at most 48 new tokens, greedy." in text
    assert "{prompt}" not in text


def test_the_index_names_the_set_that_a_metric_is_about():
    card = ModelCard(render_card(run(evaluations=forgotten())))
    found = {each.metric_type: each for each in card.data.eval_results}
    sets = {name: (each.dataset_type, each.dataset_name, each.dataset_revision) for name, each in found.items()}
    assert sets == {
        "retain_accuracy": ("truthfulqa/truthful_qa", "truthfulqa/truthful_qa (retain 200 rows)", REVISION),
        "harmful_rate": ("PKU-Alignment/PKU-SafeRLHF", "PKU-Alignment/PKU-SafeRLHF (forget 120 rows)", None),
        "min_k_auc": ("harmful-suite", "sets of the harmful suite (forget 120, retain 200 rows)", None),
    }


def test_what_a_run_cost_after_a_checkpoint_is_said_to_be_that():
    card = render_card(run(resumed_from=60))
    assert ["seconds of training (since step 60)", "-", "93.2", "-"] in tables(section(card, "Results"))[0]
    assert "Cost: 93.2 s of training (since step 60), 812 MB peak memory of the process" in card


def test_without_an_oracle_none_is_named():
    card = render_card(run(evaluations={"before": evaluation(1.0), "after": evaluation(0.5)}))
    assert "| harmful answers 100% -> 50% |" in card
    assert (
        "**oracle**" not in section(card, "Results")
        and "(oracle" not in card
        and "there is no oracle to compare with" in card
    )


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
    assert text.startswith("Not tried: relearning, quantisation and other wordings of the prompts, which may bring")
    measured = {"in_scope_harmful_rate": MetricResult(0.5, 9), "min_k_auc": MetricResult(0.625, 9)}
    text = section(render_card(run(evaluations={"after": evaluation(0.0, metrics=measured)})), "Attacks")
    assert text.startswith("A membership attack on it has an AUC 0.62 (0.5 is a guess), with no interval")
    assert "Not tried: relearning and quantisation, which" in text
    assert "Other wordings of the forget prompts were measured" in text


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
    assert "Not tried: other wordings of the prompts, which may" in text and "Not attacked" not in text


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
        ({"setting": 2.5, "nats": 2.5, "sides": "both"}, "a forget row is pulled back while its NLL is at 2.5 nats"),
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
    assert "Cost: 93.2 s of training, 812 MB peak memory of the process, 123,456 tokens, 12.3 g CO2" in text
    assert "NVIDIA H100 (16 cores); 1 process; Linux" in text
    assert "2.5 epochs of the forget set" in text
    assert "1 epoch of the forget set" in render_card(run(epochs=1.0))
    assert "![Losses](plots/the%20losses.png)" in text
    assert yaml.safe_load(blocks(text, "yaml")[0]) == {"learning_rate": 1e-4}
    assert "hf_unlearn 0.1.0, torch 2.9.0" in text


@pytest.mark.parametrize(
    ("processes", "strategy", "words"),
    [
        (1, "one process", "1 process; Linux"),
        (1, "ZeRO-2", "ZeRO-2, 1 process; Linux"),
        (1, "FSDP2", "FSDP2, 1 process; Linux"),
        (2, "ZeRO-3", "2 processes (ZeRO-3); Linux"),
        (2, "DDP", "2 processes (DDP); Linux"),
    ],
)
def test_the_strategy_is_shown_where_it_is_one(processes, strategy, words):
    hardware = {"device": "NVIDIA H100", "processes": processes, "strategy": strategy, "platform": "Linux"}
    assert f"Hardware: NVIDIA H100; {words}." in render_card(run(hardware=hardware))


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
    assert "--merge" in adapter and "merge(model).save_pretrained" in adapter
    assert "no adapter to take off" in merged and "--merge" not in merged and "without this adapter" not in merged
    later = "before its adapter was merged"
    comes_off = "Without its adapter it is the model before unlearning"
    assert comes_off in render_card(run()) and comes_off not in render_card(run(), merged=True)
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


def test_a_loss_of_the_users_own_is_written_as_an_object():
    own = TermRecord("my_loss", {"a": 1}, "", "Me 2026, arXiv:2601.00001", weight=2.0, own="MyLoss")
    wrapper = ComponentRecord("sam", {"rho": 0.1}, own="MySAM")
    card = render_card(run(objective=ObjectiveRecord([NPO, own, KL], step_wrappers=[SAM, wrapper])))
    (code,) = blocks(section(card, "How to reproduce"), "python")
    compile(code, "card", "exec")
    assert "forget_loss=[{'name': 'npo', 'beta': 0.1}, MyLoss(a=1, weight=2.0)],\n" in code
    assert "step_wrappers=[{'name': 'sam', 'rho': 0.01}, MySAM(rho=0.1)],\n" in code
    assert "retain_loss='kl'," in code and "# of the user's own, not in hf_unlearn: MyLoss, MySAM\n" in code
    assert "eprint = {2601.00001}" in card
    assert "| `forget/my_loss` | `MyLoss`, a loss of the user's own | `a=1` |" in card
    assert "| `step/sam` | `MySAM`, a step wrapper of the user's own | `rho=0.1` | - |" in card
    assert "MyLoss" in metadata(card)["tags"]


def test_a_class_of_the_users_own_is_told_by_its_class_and_not_by_its_name():
    """One that inherits from a packaged loss has its name."""
    own = dataclasses.replace(NPO, formula="", paper="", own="MyNPO")
    card = render_card(run(objective=ObjectiveRecord([own])))
    assert "forget_loss=[MyNPO(beta=0.1)]," in card and "'name': 'npo'" not in card
    assert "`MyNPO`, a loss of the user's own | `beta=0.1` | - |" in card
    assert "of the user's own, not in" not in render_card(run())


def test_arguments_of_a_machine_are_not_in_the_code():
    card = render_card(run(arguments={"use_cpu": True, "dataloader_pin_memory": False, "learning_rate": 1e-4}))
    (code,) = blocks(section(card, "How to reproduce"), "python")
    assert "learning_rate=0.0001," in code and "use_cpu" not in code and "pin_memory" not in code
    assert "use_cpu: true" in section(card, "Training")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"forget": SetRecord(120, "3f" * 32)}, "`results.json`, which has the hashes in full.\n"),
        ({"forget": SetRecord(None)}, "in this card or in `results.json`.\n"),
        (
            {"forget": SetRecord(120, "3f" * 32), "retain": SetRecord(None)},
            "which has the hashes that are known in full.\n",
        ),
        (
            {"forget": SetRecord(9, "3f" * 32), "retain": SetRecord(10, "3f" * 32)},
            "in full. The hashes have no salt: whoever guesses all the rows of a set as small as forget can confirm",
        ),
    ],
)
def test_what_hashes_there_are_and_what_those_of_few_rows_tell(sets, words):
    card = render_card(run(sets=sets))
    assert words in card
    assert ("no salt" in card) is ("no salt" in words)


def test_what_the_hub_would_refuse_is_named(monkeypatch):
    said = []
    monkeypatch.setattr("hf_unlearn.results.model_card.metadata.logger.warning", said.append)
    render_card(run(metadata=CardMetadata(license="My License", language=["english"])))
    assert said == [
        "The card leaves out language 'english': the Hub would refuse the card.",
        "The card leaves out license 'My License': the Hub would refuse the card.",
    ]


def test_the_repository_may_stand_in_the_record():
    card = render_card(run(metadata=CardMetadata(repo_id="me/kept")))
    assert 'PeftModel.from_pretrained(base, "me/kept")' in card
    assert '"me/given"' in render_card(run(metadata=CardMetadata(repo_id="me/kept")), repo_id="me/given")


def test_what_was_used_is_cited_and_nothing_else():
    def cited(record: RunRecord) -> list[str]:
        return re.findall(r"^@\w+\{([\w-]+),", section(render_card(record), "Citation"), re.MULTILINE)

    assert cited(run()) == ["hf_unlearn", "zhang_2024_npo", "maini_2024_tofu", "fan_2025_resilient"]
    saliency = ComponentRecord("saliency", {}, "", STEP_WRAPPERS["saliency"].paper)
    record = run(objective=ObjectiveRecord([NPO], step_wrappers=[saliency], optimizer="sophia"))
    assert cited(record) == [
        *("hf_unlearn", "zhang_2024_npo", "fan_2023_salun", "jia_2024_wagle", "liu_2023_sophia", "jia_2024_soul"),
    ]
    assert cited(run(objective=ObjectiveRecord([dataclasses.replace(NPO, paper="A book, 1999")]))) == ["hf_unlearn"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{c}:/people/bob/x",
            "in {c}:/data/x",
            "\\\\server\\share\\x",
            "~bob/x",
            "x:/{root}/y/z",
            "path:/{root}/y/z",
        ),
        *(
            "-/{root}/y/z",
            "it lies in /{home}/bob/run now",
            "(/{home}/bob)",
            "see /{home}",
            "C:\\models\\x",
            "dir=/data/x",
        ),
        "api_org_" + "a1B2" * 8,
    ],
)
def test_paths_and_tokens_are_found_in_all_their_forms(text):
    folders = {"c": "C", "root": "root", "home": "home"}  # kept apart, or this file would be found
    secret = text.format(**folders)
    kept = redacted(secret)
    assert ("(a local path)" in kept) != ("(a token)" in kept)
    assert not re.search(r"bob|share|/y|people|models|data|home|a1B2", kept)


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
        attack_report=report(suite=text, skipped={"merge": text}, warnings=[secret]),
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
        "2026/11/26",
        "(2/b) softplus(-b x)",
        "mean_t -lp_t",
        "KL(pi_ref || pi_theta)",
        "methods/npo",
        "base_model:adapter:owner/name",
        "hf://datasets/owner/name",
        "https://a.org:80/tmp/x/y?z=/a/b",
        r"$\frac{a}{b} \\ \hline$, f:\mathbb{R}^n, a \\ \alpha",
        "about ~5/6, p ~ N(0, 1)/2",
        "`a`/`b` and/or **/*.py",
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


@pytest.mark.parametrize(
    "text",
    [
        "![p](https://evil.example/x.png)",
        "<script>alert(1)</script>",
        "[a]: https://evil.example",
        "a\n# heading\n---\nlicense: mit",
        "`code` | **bold** | ~~gone~~",
        "```\n\n![p](https://evil.example/x.png)\n\n```",
    ],
)
def test_names_and_reasons_are_text_and_nothing_else(text):
    """In a title, a stop reason, a warning, a class, a package and a formula."""
    record = run(stop_reason=text)
    record.metadata.model_name = record.versions["hf_unlearn"] = text
    record.evaluations["after"].warnings.append(text)
    record.objective.terms[0] = dataclasses.replace(NPO, own=text, package=text, version=text)
    card = render_card(record)
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(front).get("license") == run().metadata.license
    words = re.sub(r"^(`{3,}).*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)  # code blocks show what they hold
    words = re.sub(r"(?<!\\)(`+)(?!`).+?(?<!`)\1(?!`)", "", words)  # and so do code spans
    for live in ("](https://evil", "<script", "**bold**", "\n# heading", "\n[a]:", "pip install x"):
        assert live not in words
