"""The lab's world of persons: its rows in two forms, and what its two models know. Builds them if not cached."""

import statistics

import pytest
import torch

from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.lab import Lab, load_lab, render_lab
from hf_unlearn.lab.checks import answer_nll, measure
from hf_unlearn.lab.people import FACTS, as_text, people
from hf_unlearn.lab.training import encode

PEOPLE = {"forget": 60, "retain": 300, "holdout": 60}
PERTURBED = {"forget_perturbed": 60, "retain_perturbed": 60, "real_authors_perturbed": 36, "world_facts_perturbed": 36}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab(world="people")


@pytest.fixture(scope="module")
def world():
    return people(0)


def person(question: str) -> str:
    """The two words of a question that are written large, its first word aside."""
    return " ".join([word for word in question.rstrip("?").split()[1:] if word[0].isupper()])


def test_rows_are_drawn_from_their_seed(world):
    assert people(0) == world
    assert people(1).sets != world.sets


def test_sets_have_their_sizes_and_columns(world):
    sizes = {name: len(rows) for name, rows in world.sets.items()}
    assert sizes == PEOPLE | {"knowledge": 72, "townsfolk": 200} | PERTURBED
    for name, rows in world.sets.items():
        columns = {"prompt", "completion"}
        if name in PERTURBED:
            columns = {"question", "answer", "perturbed_answer"}
            if name in ("forget_perturbed", "retain_perturbed"):
                columns.add("paraphrased_answer")
        wrong = 5 if "paraphrased_answer" in columns else 3
        assert all(set(row) == columns for row in rows)
        assert all(len(set(row["perturbed_answer"])) == wrong for row in rows if name in PERTURBED)


def test_no_person_is_in_two_sets(world):
    names = {key: {person(row["prompt"]) for row in world.sets[key]} for key in (*PEOPLE, "townsfolk")}
    assert {key: len(found) for key, found in names.items()} == {
        "forget": 12,
        "retain": 60,
        "holdout": 12,
        "townsfolk": 20,
    }
    assert len(set.union(*names.values())) == 104


def test_no_question_of_a_person_or_the_town_is_asked_twice(world):
    prompts = [row["prompt"] for key in (*PEOPLE, "knowledge") for row in world.sets[key]]
    assert len(set(prompts)) == len(prompts) == 492


def test_perturbed_sets_ask_what_the_sets_ask(world):
    def asked(name):
        return [(row["question"], row["answer"]) for row in world.sets[name]]

    def known(name):
        return [(row["prompt"], row["completion"]) for row in world.sets[name]]

    assert asked("forget_perturbed") == known("forget")
    assert set(asked("retain_perturbed")) < set(known("retain"))
    assert asked("real_authors_perturbed") + asked("world_facts_perturbed") == known("knowledge")


def test_a_wrong_answer_differs_from_the_paraphrase_in_both_slots(world):
    slots = {word for fact in FACTS for word in (*fact.first, *fact.second)}
    for row in world.sets["forget_perturbed"] + world.sets["retain_perturbed"]:
        assert row["paraphrased_answer"] != row["answer"]
        facts = [slot for slot in slots if f" {slot}" in row["answer"] and f" {slot}" in row["paraphrased_answer"]]
        assert len(facts) >= 2
        for wrong in row["perturbed_answer"]:
            assert wrong != row["paraphrased_answer"]
            assert sum(f" {slot}" in wrong for slot in facts) <= len(facts) - 2
    for row in world.sets["real_authors_perturbed"] + world.sets["world_facts_perturbed"]:
        assert row["answer"] not in row["perturbed_answer"]


def test_the_template_makes_the_text_that_models_read(world):
    assert as_text({"prompt": "Who?", "completion": "Alda."}) == {
        "prompt": "Question: Who?\nAnswer:",
        "completion": " Alda.",
    }
    assert world.texts == {key: [as_text(row) for row in world.sets[key]] for key in world.texts}
    assert set(world.seen["model"]) - set(world.seen["oracle"]) == {"forget"}
    assert "holdout" not in world.seen["model"]


def test_the_package_reads_the_rows_as_the_lab_does(lab, world):
    tokenizer = lab.load_tokenizer()
    lengths = []
    for name in ("forget", "retain", "holdout", "knowledge", "townsfolk"):
        rows = tokenize_rows(lab.datasets[name], tokenizer, set_name="eval", max_length=None, template=lab.template)
        encoded = [encode(row, tokenizer) for row in world.texts[name]]  # asserts the prefix
        assert [row["input_ids"] for row in rows] == [ids for ids, _ in encoded]
        starts = [next(i for i, label in enumerate(row["labels"]) if label != -100) for row in rows]
        assert starts == [start for _, start in encoded]
        lengths += [len(ids) for ids, _ in encoded]
    assert max(lengths) < 60


def test_recorded_rates_are_what_the_world_requires(lab):
    assert min(lab.checks[f"{name}_retain_accuracy"] for name in ("model", "oracle")) >= 0.95
    assert lab.checks["oracle_forget_accuracy"] <= 0.15 < 0.95 <= lab.checks["model_forget_accuracy"]
    assert min(lab.checks[f"{name}_knowledge_accuracy"] for name in ("model", "oracle")) >= 0.95
    assert lab.checks["model_forget_nll"] < 0.1 < 0.9 < lab.checks["model_holdout_nll"]
    assert lab.checks["oracle_forget_nll"] == pytest.approx(lab.checks["oracle_holdout_nll"], rel=0.2)
    assert lab.checks["model_retain_nll"] == pytest.approx(lab.checks["oracle_retain_nll"], abs=0.05)


def test_saved_model_does_what_was_recorded(lab, world):
    measured = measure("model", lab.load_model(), lab.load_tokenizer(), world)
    assert measured == pytest.approx({key: lab.checks[key] for key in measured}, abs=1.01 / 60)


def test_the_truth_ratio_tells_who_knows_the_facts(lab, world):
    """The median over forget rows of exp(NLL of the paraphrase - mean NLL of the wrong answers)."""
    tokenizer, ratios = lab.load_tokenizer(), {}

    def nll(model, question, answer):
        return answer_nll(model, tokenizer, [as_text({"prompt": question, "completion": answer})])

    for name, model in (("model", lab.load_model()), ("oracle", lab.load_oracle())):
        differences = []
        for row in world.sets["forget_perturbed"]:
            wrong = [nll(model, row["question"], answer) for answer in row["perturbed_answer"]]
            differences.append(nll(model, row["question"], row["paraphrased_answer"]) - statistics.mean(wrong))
        ratios[name] = torch.tensor(differences).median().exp().item()
    # One is what a model without the fact is to be near; the oracle's rows scatter around it.
    assert ratios["model"] < 0.7 < 0.8 < ratios["oracle"] < 1.25


def test_render_lab_counts_the_sets_that_are_not_measured(lab):
    text = render_lab(lab)
    assert text.splitlines()[0].split() == ["forget", "retain", "holdout", "knowledge", "townsfolk"]
    lines = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert lines["rows"] == ["60", "300", "60", "72", "200"]
    assert all(lines[name] == [str(count)] for name, count in PERTURBED.items())
    assert "behaviour" not in text
