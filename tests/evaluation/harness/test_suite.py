"""Harness tasks on tiny models against options scored one by one, and what a run leaves behind. Not the harness."""

import json
import logging
import math
import random
import socket
import sys
from pathlib import Path

import datasets
import lm_eval as harness
import numpy as np
import pytest
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from peft import LoraConfig, get_peft_model

from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.tokenizer import CHAT_TEMPLATE
from hf_unlearn.evaluation.harness.model import InMemoryModel
from hf_unlearn.evaluation.harness.suite import LMEvalSuite, lm_eval
from hf_unlearn.evaluation.harness.tasks import multiple_choice, truthfulqa_mc
from hf_unlearn.model.score_rows import preserve_rng_state

HARNESS_TASKS = Path(harness.__file__).parent / "tasks"
# Answers of different lengths, and of one length where their odds are to differ from row to row; the true one is not
# always in front, as it is in the published file.
TRUTHS = [
    {
        "question": f"What do {name} eat?",
        "mc1_targets": {"tin": 0, "grass and hay": 1, "clouds": 0}
        if name == "cows"
        else {"oats": 1, f"{name} eat stones": 0},
        "mc2_targets": {"hay": 1, "oats in winter": 1, "tin": 0, name[:3]: 0},
    }
    for name in ("cows", "horses", "sheep", "goats", "bees")
]
# Of two subjects, in no order, with two to four choices.
QUESTIONS = [
    {
        "subject": subject,
        "question": f" Pick {i}?",
        "choices": ["ox", "yak", "emu", "cod"][: 2 + i % 3],
        "answer": i * 7 % (2 + i % 3),
    }
    for i, subject in enumerate(["sea_life", "art", "art", "sea_life", "art", "sea_life", "art", "art", "sea_life"])
]


@pytest.fixture(autouse=True)
def no_look_at_the_machine(monkeypatch):
    """The harness's record of the environment takes a second, and nothing here reads it."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)


@pytest.fixture
def model():
    model = tiny_model(seed=5)
    model.config.max_position_embeddings = 1024  # rotary: any number of positions, as TruthfulQA's examples need
    return model


def written(folder: Path, rows, name: str = "rows.json") -> Path:
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows)) + "\n"
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def run(tasks, model, **settings):
    suite = lm_eval(tasks, **settings)
    return suite.run(model, tiny_tokenizer(), batch_size=3, seed=1)


def log_probability(model, prompt: str, answer: str) -> float:
    """Of an answer after a prompt: token after token, one forward each."""
    tokenizer = tiny_tokenizer()
    ids, start = tokenizer(prompt + answer)["input_ids"], len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        return sum(
            float(model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)[ids[place]])
            for place in range(start, len(ids))
        )


def scores(model, example) -> list[float]:
    """Log-probabilities of the choices of one document."""
    description = example.get("description", "")
    return [log_probability(model, description + example["text"], f" {choice}") for choice in example["choices"]]


def documents(config, split: str = "test") -> list[dict]:
    return list(config["custom_dataset"]()[split])


def requests(config) -> list[tuple[str, str]]:
    """Every (prompt, continuation) that the harness makes of a config."""
    task = ConfigurableTask(config=dict(config))
    task.set_fewshot_seed(0)
    task.build_all_requests()
    return [instance.args for instance in task.instances]


def as_the_harness_has_it(folder: str, dataset: datasets.DatasetDict, **changes):
    config = load_yaml(HARNESS_TASKS / folder) | {"custom_dataset": lambda **_: dataset} | changes
    return {key: value for key, value in config.items() if key not in ("dataset_path", "dataset_name", "tag")}


def test_truthfulqa_asks_what_the_task_of_the_harness_asks(tmp_path):
    first, second = truthfulqa_mc(written(tmp_path, TRUTHS))
    rows = [
        {"question": row["question"]}
        | {k: {"choices": list(row[k]), "labels": list(row[k].values())} for k in ("mc1_targets", "mc2_targets")}
        for row in TRUTHS
    ]
    dataset = datasets.DatasetDict(validation=datasets.Dataset.from_list(rows))
    for config in (first, second):
        expected = requests(as_the_harness_has_it(f"truthfulqa/{config['task']}.yaml", dataset))
        assert len(expected) > len(TRUTHS) and requests(config) == expected


@pytest.mark.parametrize("shots", [0, 2])
def test_multiple_choice_asks_what_mmlu_asks(tmp_path, shots):
    rows = [row | {"choices": ["ox", "yak", "emu", "cod"], "subject": "high_school_geography"} for row in QUESTIONS]
    dev = [row | {"question": f"{row['question']} dev"} for row in rows]
    [config] = multiple_choice(
        written(tmp_path, rows, "test.jsonl"),
        dev_path=written(tmp_path, dev, "dev.jsonl") if shots else None,
        num_fewshot=shots,
    )
    dataset = datasets.DatasetDict(test=datasets.Dataset.from_list(rows), dev=datasets.Dataset.from_list(dev))
    path = "mmlu/default/mmlu_high_school_geography.yaml"
    expected = requests(as_the_harness_has_it(path, dataset, num_fewshot=shots))
    assert requests(config) == expected and ("dev" in expected[0][0]) == bool(shots)


def test_mc1_and_mc2_are_those_of_options_scored_one_by_one(model, tmp_path):
    first, second = truthfulqa_mc(written(tmp_path, TRUTHS))
    right = [int(np.argmax(scores(model, row))) == row["answer"] for row in documents(first)]
    masses = []
    for row in documents(second):
        chances = [math.exp(score) for score in scores(model, row)]
        masses.append(sum(p for p, label in zip(chances, row["labels"], strict=True) if label) / sum(chances))
    assert 0 < sum(right) < len(right) and np.std(masses) > 0.01  # or one constant would do for all
    metrics, counts = run([first, second], model)
    assert set(metrics) == {"truthfulqa_mc1/acc", "truthfulqa_mc2/acc"}
    mc1, mc2 = metrics["truthfulqa_mc1/acc"], metrics["truthfulqa_mc2/acc"]
    assert (mc1.value, mc1.n, mc1.interval) == (sum(right) / len(right), 5, "wilson")
    assert mc2.value == pytest.approx(np.mean(masses), rel=1e-4)
    assert (mc2.n, mc2.interval) == (5, "bootstrap") and mc2.low < mc2.value < mc2.high
    asked = sum(len(row["mc1_targets"]) + len(row["mc2_targets"]) for row in TRUTHS)
    assert counts == {"documents": 10, "requests": asked, "truncated": 0}


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_multiple_choice_is_that_of_letters_scored_one_by_one(kind, tmp_path):
    model = tiny_model(kind, seed=2).eval()
    model.config.max_position_embeddings = 1024 if kind == "llama" else 128
    tasks = multiple_choice(written(tmp_path, QUESTIONS, "test.jsonl"), name="quiz")
    right = {
        config["task"]: [int(np.argmax(scores(model, row))) == row["answer"] for row in documents(config)]
        for config in tasks
    }
    metrics, _ = run(tasks, model)
    assert set(metrics) == {"quiz_sea_life/acc", "quiz_art/acc", "quiz/acc"}
    for task, outcomes in right.items():
        assert (metrics[f"{task}/acc"].value, metrics[f"{task}/acc"].n) == (np.mean(outcomes), len(outcomes))
    together = right["quiz_sea_life"] + right["quiz_art"]
    assert 0 < sum(together) < 9
    assert metrics["quiz/acc"].value == pytest.approx(sum(together) / 9) and metrics["quiz/acc"].n == 9
    assert metrics["quiz/acc"].interval == "wilson"


def test_mc2_has_a_value_where_every_probability_underflows(model, tmp_path):
    with torch.no_grad():
        model.lm_head.weight *= 300.0
    _, second = truthfulqa_mc(written(tmp_path, TRUTHS))
    assert all(math.exp(score) == 0.0 for score in scores(model.eval(), documents(second)[0]))
    metrics, _ = run([second], model)
    assert 0.0 <= metrics["truthfulqa_mc2/acc"].value <= 1.0


def test_a_model_that_has_diverged_gets_no_score(model, tmp_path):
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    truths = truthfulqa_mc(written(tmp_path, TRUTHS))
    questions = multiple_choice(written(tmp_path, QUESTIONS, "test.jsonl"), name="quiz")
    metrics, _ = run([*truths, *questions], model)
    assert len(metrics) == 5 and all(math.isnan(each.value) for each in metrics.values())


def test_log_probabilities_of_a_model_in_16_bits_are_not_rounded_to_16_bits():
    model = tiny_model(seed=5).bfloat16()
    asked = InMemoryModel(model, tiny_tokenizer(), 2)
    found = [score for score, _ in asked._loglikelihood_tokens([(None, [1, 70], [token]) for token in range(80, 84)])]
    with torch.no_grad():
        exact = model(input_ids=torch.tensor([[1, 70]])).logits[0, -1].float().log_softmax(-1)[80:84]
    assert found == pytest.approx(exact.tolist(), abs=1e-5)
    assert not torch.equal(exact, exact.bfloat16().float())


def test_limit_takes_the_first_documents_of_each_task(model, tmp_path):
    tasks = multiple_choice(written(tmp_path, QUESTIONS, "test.jsonl"), name="quiz")
    few = [row for subject in ("sea_life", "art") for row in [r for r in QUESTIONS if r["subject"] == subject][:2]]
    limited, counts = run(tasks, model, limit=2)
    alone, _ = run(multiple_choice(written(tmp_path, few, "few.jsonl"), name="quiz"), model)
    assert counts["documents"] == 4 and limited == alone
    assert limited != run(tasks, model)[0]


def test_questions_are_turns_where_the_tokenizer_has_a_chat_template(model, tmp_path, monkeypatch):
    asked = []
    score = InMemoryModel._loglikelihood_tokens
    monkeypatch.setattr(
        InMemoryModel,
        "_loglikelihood_tokens",
        lambda self, requests, *a, **k: asked.append(requests) or score(self, requests, *a, **k),
    )
    path = written(tmp_path, QUESTIONS, "test.jsonl")
    tasks = multiple_choice(path, dev_path=path, name="quiz", num_fewshot=1)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%Y') }}{{ mood }}" + CHAT_TEMPLATE
    mood = {"chat_template_kwargs": {"mood": "sad"}}
    for settings, turns in (({}, 2), ({"fewshot_as_multiturn": False}, 1), ({"apply_chat_template": False}, 0)):
        suite = lm_eval(tasks, limit=1, **mood, **settings)
        suite.run(model, tokenizer, batch_size=3, seed=1)
        assert suite.settings(tokenizer)["apply_chat_template"] is bool(turns)
        prompt = asked.pop()[0][0][0]
        assert prompt.count("<|im_start|>user") == turns and prompt.startswith("2024sad<|im_start|>") is bool(turns)
        assert prompt.endswith("<|im_start|>assistant\n") is bool(turns)
    tokenizer.chat_template = None
    assert lm_eval(tasks).chat_template(tokenizer) is False
    with pytest.raises(ValueError, match="a tokenizer with a chat template"):
        lm_eval(tasks, apply_chat_template=True).run(model, tokenizer, batch_size=3, seed=1)


def test_prompts_that_are_too_long_are_counted_and_warned_of(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(logging.getLogger(LMEvalSuite.__module__), "warning", warned.append)
    model = tiny_model(seed=5)  # 128 positions
    _, counts = run(truthfulqa_mc(written(tmp_path, TRUTHS)), model, limit=1)
    assert counts["truncated"] == counts["requests"] == 7
    assert len(warned) == 1 and "7 of 7 requests are longer than the model's 128 positions" in warned[0]


def test_groups_and_metrics_of_whole_sets(model, tmp_path):
    rows = [{"q": f"{i}?", "choices": ["no", "yes"], "gold": i % 2} for i in range(5)]
    shared = {
        "output_type": "multiple_choice",
        "doc_to_text": "q",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
    }
    (tmp_path / "tasks").mkdir()
    metrics = [{"metric": name, "higher_is_better": True} for name in ("acc", "f1")]
    for name, part in (("even", rows[:2]), ("odd", rows)):
        path = str(written(tmp_path, part, f"{name}.jsonl"))
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}}, "test_split": "test"}
        task = {"task": name, "metric_list": metrics} | data | shared
        (tmp_path / "tasks" / f"{name}.yaml").write_text(json.dumps(task))
    whole = {"group": "both", "task": ["even", "odd"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "tasks" / "both.yaml").write_text(json.dumps(whole))
    found, counts = run("both", model, include_path=tmp_path / "tasks", include_defaults=False)
    assert set(found) == {"both/acc", "even/acc", "even/f1", "odd/acc", "odd/f1"} and counts["documents"] == 7
    pooled = (2 * found["even/acc"].value + 5 * found["odd/acc"].value) / 7
    assert found["both/acc"].value == pytest.approx(pooled)
    assert (found["both/acc"].n, found["both/acc"].interval) == (7, "wilson")
    assert (found["odd/f1"].n, found["odd/f1"].interval, found["odd/f1"].low) == (5, None, None)


def written_answers():
    """A task whose answers are generated, by sampling."""
    rows = datasets.Dataset.from_list([{"q": f"say {i}", "a": "x"} for i in range(4)])
    return {
        "task": "written",
        "custom_dataset": lambda **_: datasets.DatasetDict(test=rows),
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "q",
        "doc_to_target": "a",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": True, "temperature": 1.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def settings(model) -> tuple[dict, dict]:
    return model.config.to_dict(), model.generation_config.to_dict()


@pytest.mark.parametrize("adapted", [False, True])
def test_a_run_leaves_model_tokenizer_and_random_states_as_they_were(model, tmp_path, adapted):
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    own = model.generation_config
    own.top_k = 7
    wrapped = [model.get_base_model()] if adapted else []
    attributes = [set(vars(each)) for each in (model, *wrapped)]
    assert adapted == ("generation_config" not in attributes[0])
    before = settings(model), [(id(p), p.device) for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    model.train()
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    suite = lm_eval([written_answers(), *truthfulqa_mc(written(tmp_path, TRUTHS))], limit=2)
    metrics, counts = suite.run(model, tokenizer, batch_size=2, seed=3)
    assert counts["requests"] > 2 and "written/exact_match" in metrics
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected
    assert model.training and all(module.training for module in model.modules())
    assert attributes == [set(vars(each)) for each in (model, *wrapped)]
    assert model.generation_config is own and "tie_weights" not in vars(model)
    if adapted:
        assert model.get_base_model().generation_config is own
    assert before == (settings(model), [(id(p), p.device) for p in model.parameters()])
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert tokenizer.pad_token is None and torch.is_grad_enabled()


def test_tied_weights_stay_tied_and_untied_ones_untied(tmp_path):
    tasks = multiple_choice(written(tmp_path, QUESTIONS, "test.jsonl"), name="quiz")
    model = tiny_model("opt", seed=2)
    assert model.config.tie_word_embeddings
    run(tasks, model, limit=1)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    head = model.lm_head.weight
    run(tasks, model, limit=1)
    assert model.lm_head.weight is head
    model.tie_weights()  # what the harness would have done
    assert model.lm_head.weight is not head


def test_the_same_seed_samples_the_same_answers(model):
    with preserve_rng_state():
        found = [run([written_answers()], model) for _ in range(2)]
    assert found[0] == found[1] and found[0][1]["requests"] == 4


def test_random_states_come_back_after_an_error_too():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(RuntimeError), preserve_rng_state():
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        assert not torch.equal(torch.get_rng_state(), before[0]) and random.getstate() != before[2]
        assert np.random.get_state()[1].tolist() != before[1]
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_nothing_is_printed_and_no_network_is_touched(model, tmp_path, capfd, monkeypatch):
    tasks = [*truthfulqa_mc(written(tmp_path, TRUTHS)), written_answers()]
    run(tasks, model, limit=1)  # what is said at first import
    bar, level = sys.modules["lm_eval.api.task"].tqdm, logging.getLogger("lm_eval").level
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    capfd.readouterr()
    run(tasks, model)
    assert "".join(capfd.readouterr()) == ""
    assert sys.modules["lm_eval.api.task"].tqdm is bar and logging.getLogger("lm_eval").level == level


def test_an_unknown_task_is_answered_with_near_ones(model, tmp_path):
    (tmp_path / "quiz_art.yaml").write_text(json.dumps({"task": "quiz_art", "dataset_path": "json"}))
    suite = lm_eval(["quiz_arts"], include_path=tmp_path, include_defaults=False)
    with pytest.raises(ValueError, match=r"(?s)Got: 'quiz_arts'.*use quiz_art;"):
        suite.run(model, tiny_tokenizer(), batch_size=1, seed=0)


def test_without_the_harness_the_error_says_what_to_install(model, tmp_path, monkeypatch):
    suite = lm_eval(truthfulqa_mc(written(tmp_path, TRUTHS)))
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ValueError, match=r"pip install 'hf-unlearn\[eval\]'"):
        suite.run(model, tiny_tokenizer(), batch_size=1, seed=0)


def test_only_the_first_process_of_a_machine_runs(model, tmp_path, monkeypatch):
    suite = lm_eval(truthfulqa_mc(written(tmp_path, TRUTHS)))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="Got: LOCAL_RANK=1"):
        suite.run(model, tiny_tokenizer(), batch_size=1, seed=0)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"tasks": []}, "none"),
        ({"tasks": ["a", "b", "a"]}, "a name twice"),
        ({"tasks": [{"group": "a", "task": ["b"]}, {"task": "a"}]}, "a name twice"),
        ({"tasks": [{"dataset_path": "json"}]}, "a config without a name"),
        ({"tasks": "a", "limit": 0}, "0"),
        ({"tasks": "a", "num_fewshot": -1}, "-1"),
        ({"tasks": "a", "limit": True}, "True"),
        ({"tasks": "a", "num_fewshot": False}, "False"),
        ({"tasks": ["a", 5, None]}, "a NoneType, a int"),
        ({"tasks": 5}, "a int"),
    ],
)
def test_a_suite_is_checked_when_it_is_made(settings, got):
    with pytest.raises(ValueError, match=f"Got: {got}"):
        lm_eval(**settings)
    assert lm_eval("a") == LMEvalSuite(tasks=("a",))


def changed(row: dict, **changes) -> dict:
    return {key: value for key, value in (row | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("row", "got"),
    [
        (changed(TRUTHS[1], question=None), "without a question"),
        (changed(TRUTHS[1], mc1_targets=None), "without mc1_targets"),
        (changed(TRUTHS[1], mc2_targets=["oats"]), "without mc2_targets"),
        (changed(TRUTHS[1], mc2_targets={"oats": "yes"}), "with mc2_targets that are not all"),
        (changed(TRUTHS[1], mc1_targets={"oats": 0, "tin": 0}), "with no true answer in mc1_targets"),
        (changed(TRUTHS[1], mc2_targets={"oats": 0, "": 1}), "with no true answer in mc2_targets"),
        (changed(TRUTHS[1], mc2_targets={"oats": 1}), "with no false answer in mc2_targets"),
        (changed(TRUTHS[1], mc1_targets={"oats": 1, "hay": 1, "tin": 0}), "with 2 true answers in mc1_targets"),
        ("oats", "without a question"),
    ],
)
def test_a_malformed_truthfulqa_file_is_refused_without_its_text(tmp_path, row, got):
    with pytest.raises(ValueError, match=f"Got: row 2 {got}") as error:
        truthfulqa_mc(written(tmp_path, [TRUTHS[0], row]))
    assert "oats" not in str(error.value) and "What to do" in str(error.value)


@pytest.mark.parametrize(
    ("row", "got"),
    [
        (changed(QUESTIONS[2], subject=None), "without a subject"),
        (changed(QUESTIONS[2], question=" "), "without a question"),
        (changed(QUESTIONS[2], choices="ox"), "without a list of choices"),
        (changed(QUESTIONS[2], choices=["ox"]), "with 1 choices, not 2 to 26"),
        (changed(QUESTIONS[2], answer=4), "whose answer is not one of 0 to 3"),
        (changed(QUESTIONS[2], answer=-1), "whose answer is not one of 0 to 3"),
        (changed(QUESTIONS[2], answer="B"), "whose answer is not one of 0 to 3"),
        (["ox"], "that is no object"),
    ],
)
def test_a_malformed_file_of_questions_is_refused_without_its_text(tmp_path, row, got):
    with pytest.raises(ValueError, match=f"Got: row 2 {got}") as error:
        multiple_choice(written(tmp_path, [QUESTIONS[0], row], "test.jsonl"))
    assert "ox" not in str(error.value) and "What to do" in str(error.value)


def test_files_that_are_missing_empty_or_something_else_are_refused(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for read in (truthfulqa_mc, multiple_choice):
        for path, got in (("broken.json", "JSONDecodeError"), ("none.json", "FileNotFoundError")):
            with pytest.raises(ValueError, match=got):
                read(tmp_path / path)
    with pytest.raises(ValueError, match="no list of rows"):
        truthfulqa_mc(written(tmp_path, {}))
    with pytest.raises(ValueError, match="no rows"):
        multiple_choice(written(tmp_path, [], "test.jsonl"))


def test_a_subject_with_too_few_examples_is_refused(tmp_path):
    path = written(tmp_path, QUESTIONS, "test.jsonl")
    with pytest.raises(ValueError, match=r"at least 5 examples.*\nGot: 4 of one subject"):
        multiple_choice(path, dev_path=path)
    assert len(multiple_choice(path, dev_path=path, num_fewshot=4)) == 2


def test_empty_answers_are_left_out_with_a_warning(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(logging.getLogger(truthfulqa_mc.__module__), "warning", warned.append)
    clean = truthfulqa_mc(written(tmp_path, TRUTHS))
    assert not warned
    row = TRUTHS[1] | {"mc2_targets": TRUTHS[1]["mc2_targets"] | {"": 1}}
    spoilt = truthfulqa_mc(written(tmp_path, [TRUTHS[0], row, *TRUTHS[2:]]))
    assert [documents(config) for config in spoilt] == [documents(config) for config in clean]
    assert warned == ["rows.json: 1 questions have an empty answer, which is left out."]


def test_a_line_separator_inside_a_question_ends_no_row(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(QUESTIONS[0] | {"question": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    [config] = multiple_choice(path)
    assert "a\u2028b" in documents(config)[0]["text"]
