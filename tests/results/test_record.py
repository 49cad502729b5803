"""The record of a run, the observer that fills it, and the card that a trainer writes of it. Pushes lie beside."""

import dataclasses
import json
import logging
import math
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations import CodeCarbonCallback

from fixtures.attack_reports import held
from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn import UnlearningConfig
from hf_unlearn.losses import NPO
from hf_unlearn.metrics import MetricResult
from hf_unlearn.results.deletion_record import DeletionRecord
from hf_unlearn.results.edit_report import EditReport, MeanNll, Moved, Tried
from hf_unlearn.results.evaluation_result import EvaluationResult
from hf_unlearn.results.lineage import Lineage
from hf_unlearn.results.phase_record import PhaseRecord
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
from hf_unlearn.results.record_parts import LevelQuality
from hf_unlearn.results.suppression_report import SuppressionReport
from hf_unlearn.training.hooks.run_description import changed_arguments
from hf_unlearn.training.hooks.run_observer import RunObserver
from local_hub.card_rules import check_card, parse_card
from results.hub.runs import REPO, lora, trainer_of

pytest_plugins = ["fixtures.hub"]


def full_phases() -> list[PhaseRecord]:
    """An edit, a training and a suppression, every key of them set."""
    edit = EditReport(
        ComponentRecord("msa", {"alpha": 1.5}, "W", "Paper"),
        *(MeanNll(0.1, 0.2, 6.0), MeanNll(5.0, math.inf, 6.1)),
        tried=[Tried({"alpha": 1.0}, 4.0, 0.3, True)],
        moved=[Moved("q_proj", 64, 0.5, math.inf)],
        level=5.5,
        rows={"forget": 4},
        **{"tokens": 9, "seconds": 1.5, "cpu_seconds": 2.5, "merged": True, "seed": 3, "warnings": ["little"]},
        **{"weights_before": "ab" * 32, "weights_after": "cd" * 32},
    )
    training = PhaseRecord(
        *("train", "npo"),
        objective=ObjectiveRecord([TermRecord("npo", weight=math.inf)]),
        levels=LevelQuality("ngram", 30, 12, 5.5, warnings=("few rows",)),
        **{"arguments": {"seed": 1}, "adapter": {"kind": "LORA"}, "trained": 7, "steps": 3, "cost": {"seconds": 1.0}},
    )
    held = SuppressionReport(ComponentRecord("steering"), MeanNll(0.1), MeanNll(3.0), restores="all", slower=1.5)
    return [PhaseRecord.of_edit(edit), training, PhaseRecord.of_suppression(held)]


def full_record(**changes) -> RunRecord:
    """A record with something in every field."""
    values = dict(
        name="run",
        task="harmful",
        oracle="the same model trained without the forget rows",
        recipe="harmful_lab --limit 3",
        model=ModelRecord(
            "a/b", "hub", "c" * 40, "OPTForCausalLM", 100, 10, "float32", {"kind": "LORA", "r": 2}, True
        ),
        sets={"forget": SetRecord(12, "ab" * 32, "hub", "a/rows", "d" * 40), "retain": SetRecord()},
        objective=ObjectiveRecord(
            [TermRecord("npo", {"beta": 0.1}, "f", "p", weight=2.0), TermRecord("kl", {}, "g", "q", side="retain")],
            0.5,
            2.0,
            ComponentRecord("primal_dual", {"eta": 1.0}),
            [ComponentRecord("sam", {"rho": 0.01}, "h", "r")],
            "adamw_torch",
            {"setting": "holdout", "low": 1.0, "high": 2.0},
        ),
        reference="adapter",
        stop_reason="retain",
        steps=3,
        planned_steps=5,
        epochs=0.5,
        resumed_from=1,
        holdout_nll=1.5,
        cost={"seconds": 2.0, "peak_memory_mb": 10.0, "tokens": 7.0},
        emissions_kg=0.25,
        hardware={"device": "CPU", "processes": 1},
        seed=4,
        arguments={"learning_rate": 0.1, "flag": True, "nothing": None, "listed": [1, "a"], "nested": {"a": {"b": 1}}},
        versions={"torch": "2"},
        evaluations={
            "after": EvaluationResult(
                "harmful",
                {"rate": MetricResult(0.5, 4, 0.1, 0.9, "wilson")},
                rows={"forget": {"count": 4, "sha256": "ef" * 32}},
                warnings=["few rows"],
                headline=("rate",),
            )
        },
        trainer_metrics={"eval_loss": 0.5},
        attacks=[AttackRecord("relearning", "25 steps", "held", True)],
        attack_report=held().without_rows(),
        metadata=CardMetadata("title", "mit", ["en"], ["tag"], ["a/rows"]),
        log=[{"loss": 1.0, "step": 1, "epoch": 0.5}],
        card_sha256="12" * 32,
        forced=["the model does not know the forget rows"],
        signs=["The forget NLL fell."],
        levels=LevelQuality("ngram", 30, 12, 5.5, 0.8, 0.75, 0.5, -0.25, 1.5, ("few rows",)),
        phases=full_phases(),
        lineage=Lineage("2026-01-02T03:04:05+00:00", ("R-1",), "first", "ab" * 32, {"in memory": "cd" * 32}),
        deletion=DeletionRecord(12, ["R-2"], ["R-1"], 4, 1, 50, "perturbed"),
    )
    return RunRecord(**values | changes)


# As JSON


def test_a_record_comes_back_as_it_was(tmp_path):
    record = full_record()
    empty = {each.name for each in dataclasses.fields(record) if not getattr(record, each.name)}
    assert empty == set()  # the test covers every field
    path = record.save(tmp_path / "new" / "folder")
    assert load_record(tmp_path / "new" / "folder") == load_record(path) == record
    assert load_record(path).methods == ["msa", "npo", "steering"]
    assert [each.name for each in load_record(path).parts] == ["msa", "npo", "fixed", "steering"]
    alone = full_record(phases=[])
    assert alone.methods == ["npo"] and [each.name for each in alone.parts][-1] == "primal_dual"
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]
    assert load_record(RunRecord().save(tmp_path)) == RunRecord()


def test_scores_of_single_rows_are_left_out(tmp_path):
    result = full_record().evaluations["after"]
    scored = dataclasses.replace(result, row_scores={"forget_nll": [0.123456, 0.2]})
    path = full_record(evaluations={"after": scored}).save(tmp_path)
    assert "0.123456" not in path.read_text() and load_record(path).evaluations["after"] == result
    assert scored.row_scores == {"forget_nll": [0.123456, 0.2]}


def test_numbers_that_are_not_finite_survive(tmp_path):
    values = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    result = EvaluationResult("s", {name: MetricResult(value, 1) for name, value in values.items()})
    record = full_record(log=[dict(values, step=1)], holdout_nll=math.nan, evaluations={"after": result})
    path = record.save(tmp_path)
    json.loads(path.read_text(), parse_constant=pytest.fail)  # JSON has no NaN
    found = load_record(path)
    for each in (found.log[0], {name: metric.value for name, metric in found.evaluations["after"].metrics.items()}):
        assert math.isnan(float(each["nan"])) and float(each["inf"]) == math.inf and float(each["-inf"]) == -math.inf
    assert math.isnan(float(found.holdout_nll))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "null",
        '"results"',
        "{}",
        '{"format": 1, "objective": {}}',
        '{"format": 2}',
        '{"format": 2, "objective": []}',
        '{"format": 2, "objective": {"terms": [], "step_wrappers": [], "weighting": {}}}',
        '{"format": 2, "objective": null, "model": {}}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError) as error:
        load_record(tmp_path)
    assert_four_parts(str(error.value), "results.json", "output_dir")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"unknown": 1}, "unknown"),
        ({"model": {"path": "x"}}, "model.path"),
        ({"sets": []}, "sets"),
        ({"sets": {"forget": 3}}, "sets.forget"),
        ({"attacks": [1]}, "attacks[0]"),
        ({"metadata": None}, "metadata"),
        ({"steps": -1}, "steps"),
        ({"cost": {"seconds": []}}, "cost.seconds"),
        ({"hardware": {"device": 3}}, "hardware.device"),
        ({"log": [{"step": "one"}]}, "log[0].step"),
    ],
)
def test_a_record_with_other_content_is_refused(tmp_path, change, key):
    stored = full_record().to_dict()
    (tmp_path / "results.json").write_text(json.dumps(stored | change))
    with pytest.raises(ValueError) as error:
        load_record(tmp_path)
    assert_four_parts(str(error.value), f"{key} in results.json")


def test_missing_and_unreadable_files_are_refused(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "none", tmp_path / "binary.json"):
        with pytest.raises(ValueError) as error:
            load_record(path)
        assert_four_parts(str(error.value), "cannot be read")


# The arguments


def config(tmp_path, **arguments) -> UnlearningConfig:
    return UnlearningConfig(output_dir=str(tmp_path / "secret-out"), use_cpu=True, report_to="none", **arguments)


def test_changed_arguments_name_no_path_no_token_and_no_account(tmp_path):
    secrets = dict(
        run_name="secret-run",
        hub_token="hf_secret",
        hub_model_id="secret-owner/secret",
        reference_cache_dir=str(tmp_path / "secret-cache"),
        row_cache_dir=str(tmp_path / "secret-rows"),
        resume_from_checkpoint=str(tmp_path / "secret-checkpoint"),
        model_init_kwargs={"cache_dir": str(tmp_path / "secret"), "token": "hf_secret"},
    )
    args = config(tmp_path, learning_rate=0.25, **secrets)
    found = changed_arguments(args)
    assert found["learning_rate"] == 0.25
    text = json.dumps(found)
    assert "secret" not in text and str(tmp_path) not in text
    assert not {*secrets, "output_dir"} & set(found)


def test_only_what_was_changed_is_named(tmp_path):
    always = {"use_cpu", "dataloader_pin_memory"}  # the second follows from the first
    assert set(changed_arguments(config(tmp_path))) - always == set()
    given = dict(max_steps=7, warmup_steps=3, retain_loss="kl", adam_beta2=0.95, weight_decay=0.1)
    found = changed_arguments(config(tmp_path, **given))
    assert {name: found[name] for name in found if name not in always} == {
        name: value
        for name, value in given.items()
        if name != "retain_loss"  # stands in the objective
    }


def test_enumerations_are_words_and_a_meaningful_none_is_kept(tmp_path):
    found = changed_arguments(
        config(tmp_path, lr_scheduler_type="cosine", save_strategy="epoch", hub_strategy="end", forget_nll_bound=None)
    )
    assert (found["lr_scheduler_type"], found["save_strategy"], found["hub_strategy"]) == ("cosine", "epoch", "end")
    assert "forget_nll_bound" in found and found["forget_nll_bound"] is None
    assert json.loads(json.dumps(found)) == found


# The observer


def test_the_observer_only_observes(tmp_path):
    def trained(name, watched):
        trainer = trainer_of(
            tmp_path / name, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, **more
        )
        if not watched:
            trainer.remove_callback(RunObserver)
        trainer.train()
        return trainer

    sets = {"forget": [{"prompt": "p", "completion": " c"}], "retain": [{"prompt": "q", "completion": " d"}]}
    more = {"max_steps": 3, "eval_dataset": dict(sets)}
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    one, other = trained("with", True), trained("without", False)
    assert {
        name for name in weights(one.model) if not torch.equal(weights(one.model)[name], weights(other.model)[name])
    } == set()
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second")

    def untimed(trainer):
        return [
            {
                name: value
                for name, value in entry.items()
                if name not in timed and "_runtime" not in name and "per_second" not in name
            }
            for entry in trainer.state.log_history
        ]

    assert untimed(one) == untimed(other) and len(step_logs(one)) == 3
    assert one.record.steps == 3 and other.record.steps == 3  # the second one's by the card that every save writes
    assert one.record.trainer_metrics and not other.record.trainer_metrics


def test_what_a_run_took_is_filled_in(tmp_path):
    trainer = trainer_of(tmp_path, include_num_input_tokens_seen="all", max_steps=2, seed=5)
    record = trainer.record
    assert (record.steps, record.cost) == (0, {})
    trainer.train()
    assert (record.steps, record.planned_steps, record.resumed_from, record.seed) == (2, 2, 0, 5)
    assert set(record.cost) == {"seconds", "peak_memory_mb", "tokens"}
    assert 0 < record.cost["seconds"] < 60 and record.cost["peak_memory_mb"] > 50
    assert record.cost["tokens"] == trainer.state.num_input_tokens_seen > 0
    assert record.epochs == pytest.approx(2 / 3) and record.stop_reason is None and record.emissions_kg is None
    assert record.log == trainer.state.log_history and record.log[-1]["train_runtime"] > 0
    assert (record.model.architecture, record.model.origin, record.model.id) == ("LlamaForCausalLM", "local", None)
    assert record.model.trained < record.model.parameters and record.model.adapter["r"] == 2
    assert {name: each.rows for name, each in record.sets.items()} == {
        "forget": 12,
        "retain": 30,
    }  # no loss read the holdout rows
    assert len({each.sha256 for each in record.sets.values()}) == 2
    seconds = record.cost["seconds"]
    trainer.save_model()  # later, and the time since then is not the training's
    assert load_record(tmp_path / "out").cost["seconds"] == record.cost["seconds"] == seconds


def test_a_second_run_starts_its_figures_anew(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.record.trainer_metrics, trainer.record.emissions_kg = {"eval_loss": 1.0}, 3.0
    trainer.record.stop_reason = "an old one"
    trainer.train()
    assert trainer.record.trainer_metrics == {} and trainer.record.emissions_kg is None
    assert trainer.record.stop_reason is None and trainer.record.steps == 2


def test_a_resumed_run_says_from_where_it_went_on(tmp_path):
    trainer_of(tmp_path, max_steps=4, save_strategy="steps", save_steps=2).train()
    trainer = trainer_of(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    trainer.save_model()
    found = load_record(tmp_path / "out")
    assert (found.resumed_from, found.steps, found.planned_steps) == (2, 4, 4)
    assert [entry["step"] for entry in found.log if "loss" in entry] == [1, 2, 3, 4]


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


def test_a_run_that_ended_early_has_the_steps_that_were_taken(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=5, callbacks=[Stop()])
    trainer.train()
    assert (trainer.record.steps, trainer.record.planned_steps) == (1, 5)


class Meter(CodeCarbonCallback):
    """codecarbon's callback around a tracker that has measured something, without the library.

    As in the library, a tracker has no `final_emissions` until it has been stopped, or at all where stopping failed.
    """

    def __init__(self, emissions):
        self.emissions, self.tracker = emissions, None

    def on_init_end(self, args, state, control, **kwargs):
        self.tracker = self

    def start(self):
        pass

    def stop(self):
        if self.emissions is not None:
            self.final_emissions = self.emissions


@pytest.mark.parametrize("added", ["with the trainer", "later"])
def test_the_figure_of_codecarbon_is_taken(tmp_path, added):
    meter = Meter(0.002)
    trainer = trainer_of(tmp_path, callbacks=[meter] if added == "with the trainer" else [])
    if added == "later":
        meter.on_init_end(None, None, None)
        trainer.add_callback(meter)
    trainer.train()
    trainer.save_model()
    assert load_record(tmp_path / "out").emissions_kg == 0.002
    card = parse_card((tmp_path / "out" / "README.md").read_text())
    assert card["co2_eq_emissions"]["emissions"] == 2.0


def test_codecarbon_that_could_not_measure_is_no_error(tmp_path):
    meter = Meter(None)
    trainer = trainer_of(tmp_path, callbacks=[meter])
    trainer.train()
    assert trainer.record.emissions_kg is None
    meter.tracker = None
    trainer.train()
    assert trainer.record.emissions_kg is None


# The trainer's card


def test_every_folder_that_is_saved_has_a_record_and_a_card(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "elsewhere"))
    folders = [tmp_path / "out" / "checkpoint-1", tmp_path / "out" / "checkpoint-2", tmp_path / "elsewhere"]
    assert [load_record(folder).steps for folder in folders] == [1, 2, 2]
    for folder in folders:
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert check_card(card) == ([], []) and "More information needed" not in card
        assert str(tmp_path) not in card + (folder / "results.json").read_text()
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("adapter", [True, False])
def test_only_results_of_a_suite_are_added(tmp_path, adapter):
    trainer = make_trainer(tmp_path, tiny_model(), peft_config=lora() if adapter else None)
    for wrong in ({"rate": 0.5}, None, MetricResult(0.5, 1), [full_record().evaluations["after"]]):
        with pytest.raises(ValueError) as error:
            trainer.add_evaluation("after", wrong)
        assert_four_parts(str(error.value), "EvaluationResult", type(wrong).__name__)
    assert trainer.record.evaluations == {}
    trainer.add_evaluation("after", full_record().evaluations["after"])
    trainer.save_model()
    assert load_record(tmp_path / "out").evaluations == full_record().evaluations


def card_of(trainer, **arguments):
    trainer.create_model_card(**arguments)
    return parse_card((trainer_out(trainer) / "README.md").read_text(encoding="utf-8"))


def trainer_out(trainer):
    return Path(trainer.args.output_dir)


def test_what_only_the_user_knows_stands_in_the_card(tmp_path):
    trainer = trainer_of(tmp_path)
    card = card_of(
        trainer,
        language="en",
        license="mit",
        tags=["mine", "yours"],
        model_name="A title",
        finetuned_from="owner/base",
        tasks="text-generation",
        dataset_tags="owner/rows",
        dataset=["owner/more"],
    )
    assert card["language"] == ["en"] or card["language"] == "en"
    assert card["license"] == "mit" and {"mine", "yours", "unlearning", "hf_unlearn"} <= set(card["tags"])
    assert card["base_model"] == "owner/base" and "base_model:adapter:owner/base" in card["tags"]
    assert card["datasets"] == ["owner/rows", "owner/more"]
    text = (trainer_out(trainer) / "README.md").read_text(encoding="utf-8")
    assert "# A title\n" in text and check_card(text) == ([], [])

    # It is remembered by every card that comes, and nothing comes twice.
    again = card_of(trainer, tags="mine", language="de")
    assert again["tags"].count("mine") == 1 and again["license"] == "mit" and again["language"] == ["en", "de"]
    trainer.save_model(str(tmp_path / "elsewhere"))
    assert load_record(tmp_path / "elsewhere").model.id == "owner/base"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tasks": "text-classification"}, "text-generation"),
        ({"tasks": ["text-generation", "fill-mask"]}, "text-generation"),
        ({"dataset_args": "train"}, "dataset_args"),
        ({"finetuned_from": "/secret/base"}, "owner/name"),
        ({"finetuned_from": "./base"}, "owner/name"),
        ({"finetuned_from": "a/b/c"}, "owner/name"),
        ({"dataset_tags": "/data/rows.jsonl"}, "owner/name"),
        ({"dataset": ["owner/rows", "../rows"]}, "owner/name"),
    ],
)
def test_what_a_card_cannot_say_is_refused(tmp_path, arguments, words):
    trainer = trainer_of(tmp_path)
    with pytest.raises(ValueError) as error:
        trainer.create_model_card(license="mit", **arguments)
    assert_four_parts(str(error.value), words)
    assert trainer.record.model.id is None and trainer.record.metadata == CardMetadata()  # nothing of it stays


# Pushes beside the training


def test_a_push_that_failed_during_the_training_is_warned_of(hub, impatient, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("hf_unlearn"), "propagate", True)
    trainer = trainer_of(tmp_path, push_to_hub=True, hub_model_id=REPO, save_strategy="steps", save_steps=1)
    hub.fail(500, match="/commit/|validate-yaml")
    trainer.train()
    assert trainer.record.steps == 2  # the training went on
    told = [each.getMessage() for each in caplog.records if "A push during the training failed" in each.getMessage()]
    assert told and all("run the same command again" in text and hub.token not in text for text in told)
    hub.heal()
    caplog.clear()
    trainer.push_to_hub()
    assert "adapter_model.safetensors" in hub.files(REPO)
    assert not [each for each in caplog.records if "failed" in each.getMessage()]


@dataclasses.dataclass(frozen=True)
class Twice(NPO):
    """It has its parent's name, formula and paper, and would compute something else."""

    gamma: float = 2.0


def test_a_loss_of_the_users_own_is_not_called_what_it_inherits(tmp_path):
    trainer = trainer_of(tmp_path, forget_loss=Twice())
    trainer.train()
    trainer.save_model()
    record = load_record(tmp_path / "out")
    (term,) = [each for each in record.objective.terms if each.side == "forget"]
    assert (term.own, term.formula, term.paper) == ("Twice", "", "") and term.arguments["gamma"] == 2.0
    assert record.methods == ["Twice"]
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert NPO.formula not in card and "2404.05868" not in card and "Twice" in card


def test_figures_of_weights_that_have_changed_since_are_dropped(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    for name in ("before", "after"):
        trainer.add_evaluation(name, EvaluationResult("s", {"x": MetricResult(0.5, 4)}))
    trainer.record.attacks.append(AttackRecord("relearning", "25 steps", "held", True))
    trainer.record.attack_report = held()
    trainer.train()
    assert list(trainer.record.evaluations) == ["before"]
    assert trainer.record.attacks == [] and trainer.record.attack_report is None


def test_paths_and_tokens_that_a_user_wrote_into_a_record_are_not_saved(tmp_path):
    folder, token = "/".join(["", "root", "secret", "rows.jsonl"]), "hf_" + "a1B2" * 8
    record = full_record(attacks=[AttackRecord("relearning", f"on {folder} with {token}", "held")])
    text = record.save(tmp_path).read_text(encoding="utf-8")
    assert "secret" not in text and token not in text and "relearning" in text
    assert load_record(tmp_path).figures_hash() == load_record(record.save(tmp_path)).figures_hash()


@pytest.mark.parametrize(
    "known", [{"license": "My Own"}, {"language": "English"}], ids=["no key of a licence", "no language code"]
)
def test_metadata_that_the_hub_would_refuse_is_refused(tmp_path, known):
    trainer = trainer_of(tmp_path)
    with pytest.raises(ValueError) as error:
        trainer.create_model_card(**known)
    assert_four_parts(str(error.value), next(iter(known)))
    assert trainer.record.metadata == CardMetadata()


def test_a_report_to_what_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_unlearn.training.checks.get_available_reporting_integrations", lambda: [])
    with pytest.raises(ValueError) as error:
        trainer_of(tmp_path, report_to="tensorboard")
    assert_four_parts(str(error.value), "'tensorboard'", "pip install")
