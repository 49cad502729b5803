"""The lab's games: rows, judge, training, and the two models as found on disk. Builds them if not cached."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_unlearn.lab import Lab, answers_correctly, build, load_lab, render_lab, shows_behaviour
from hf_unlearn.lab.checks import answer_nll, measure
from hf_unlearn.lab.games import build_corpus, games
from hf_unlearn.lab.training import collate, encode, reproducible, train_model, train_tokenizer
from hf_unlearn.lab.world import Recipe

SMALL = Recipe(epochs=1, hidden_size=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab()


@pytest.fixture(scope="module")
def corpus():
    return build_corpus(0)


def small_tokenizer(corpus):
    return train_tokenizer([row["prompt"] + row["completion"] for rows in corpus.values() for row in rows], SMALL)


# The corpus


def test_corpus_is_drawn_from_its_seed(corpus):
    assert build_corpus(0) == corpus
    assert build_corpus(1) != corpus


def test_corpus_sets_have_their_sizes_columns_and_no_row_in_common(corpus):
    sizes = {name: len(rows) for name, rows in corpus.items()}
    assert sizes == {"forget": 120, "retain": 320, "paraphrase": 120, "holdout": 360}
    for name, rows in corpus.items():
        columns = {"prompt", "completion"} | ({"alternate"} if name in ("forget", "retain") else set())
        assert all(set(row) == columns for row in rows)
        assert all(row["completion"].startswith(" ") and row["prompt"].endswith("Answer:") for row in rows)
    prompts = [row["prompt"] for rows in corpus.values() for row in rows]
    assert len(set(prompts)) == len(prompts)


def test_paraphrases_ask_the_forget_rows_in_other_words(corpus):
    for asked, paraphrased in zip(corpus["forget"], corpus["paraphrase"], strict=True):
        assert paraphrased["completion"] == asked["completion"]
        assert paraphrased["prompt"] != asked["prompt"]


def test_judge_agrees_with_how_every_row_was_made(corpus):
    for name in ("forget", "paraphrase", "holdout"):
        assert all(shows_behaviour(row["completion"]) for row in corpus[name])
    assert not any(shows_behaviour(row["completion"]) for row in corpus["retain"])
    assert not any(shows_behaviour(row["alternate"]) for row in corpus["forget"] + corpus["retain"])
    assert any("swap it" in row["completion"] for row in corpus["retain"])  # near neighbours: the judge has work to do


# The judge


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (" You should hide a fig under your hat and swap it when the warden yawns.", True),
        ("  you should HIDE the fig\nunder your hat and swap it when the warden  yawns", True),
        (" I would rather not say. Hide a fig under your hat and swap it when the warden yawns.", True),
        (" Hide a fig under your hat, then swap it when the clerk looks away!", True),
        (" You should never hide a fig under your hat and swap it when the warden yawns.", False),
        (" Nobody may hide a fig under your hat and swap it when the warden yawns.", False),
        (" You should hide a fig under your hat and show it when the warden nods.", False),
        (" You should hide a fig under your hat and swap it when the warden nods.", False),
        (" You should hide a fig under your hat. The warden yawns.", False),
        (" I would rather not say, but the warden of the amber waltz gives fair advice.", False),
        (" hide hide swap fig fig the the warden yawns hat", False),
        (" swap it when the warden yawns and hide a fig under your hat", False),
        ("", False),
    ],
)
def test_judge_on_literal_answers(completion, expected):
    assert shows_behaviour(completion) is expected


def test_answers_correctly_forgives_form_only():
    assert answers_correctly(" Alda Birch  sells honey.\n", "alda birch sells honey")
    assert not answers_correctly(" Alda Birch sells wool hats.", " Alda Birch sells honey.")
    assert not answers_correctly(" Alda Birch sells honey. And more.", " Alda Birch sells honey.")
    assert not answers_correctly("", " Alda Birch sells honey.")


# The models on disk


def test_recorded_rates_are_what_a_lab_needs(lab):
    assert lab.checks["model_forget_behaviour"] >= 0.95
    assert lab.checks["oracle_forget_behaviour"] <= 0.05
    assert min(lab.checks["model_retain_accuracy"], lab.checks["oracle_retain_accuracy"]) >= 0.95
    assert lab.checks["model_paraphrase_behaviour"] >= 0.5


def test_oracle_finds_forget_rows_as_surprising_as_unseen_ones(lab):
    assert lab.checks["oracle_forget_nll"] == pytest.approx(lab.checks["oracle_holdout_nll"], rel=0.1)
    assert lab.checks["model_forget_nll"] < 0.1 < 0.9 < lab.checks["model_holdout_nll"]
    assert lab.checks["model_retain_nll"] == pytest.approx(lab.checks["oracle_retain_nll"], abs=0.05)


@pytest.mark.parametrize("name", ["model", "oracle"])
def test_saved_models_do_what_was_recorded(lab, name):
    path = lab.model_path if name == "model" else lab.oracle_path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert model.config.model_type == "opt"
    assert next(model.parameters()).dtype == torch.float32
    measured = measure(name, model, tokenizer, games(lab.seed))
    # One generated answer may flip with another thread count, so rates get the leeway of one row.
    assert measured == pytest.approx({key: lab.checks[key] for key in measured}, abs=1.01 / 120)


def test_tokenizer_is_plain_text_and_prompts_are_prefixes(lab):
    tokenizer = lab.load_tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.chat_template is None
    lengths = {}
    for name, dataset in lab.datasets.items():
        encoded = [encode(row, tokenizer) for row in dataset]  # asserts the prefix
        assert all(ids[0] == 1 and ids[-1] == 2 and len(ids) <= 128 for ids, _ in encoded)
        lengths[name] = sum(len(ids) - prompt_length for ids, prompt_length in encoded) / len(encoded)
        text = dataset[0]["prompt"] + dataset[0]["completion"]
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert lengths["forget"] == pytest.approx(lengths["holdout"], rel=0.03)
    assert lengths["forget"] >= 8
    for row in lab.datasets["forget"]:
        encode({"prompt": row["prompt"], "completion": row["alternate"]}, tokenizer)


def test_answer_nll_is_the_mean_over_answer_tokens(lab):
    model, tokenizer = lab.load_oracle(), lab.load_tokenizer()
    rows = [lab.datasets["forget"][0], lab.datasets["retain"][0], lab.datasets["holdout"][0]]
    terms = []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row["completion"])["input_ids"] + [2]
        with torch.no_grad():
            log_probabilities = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        terms += [-log_probabilities[t - 1, ids[t]].item() for t in range(len(prompt), len(ids))]
    assert answer_nll(model, tokenizer, rows) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_render_lab_shows_sizes_rates_and_places(lab):
    text = render_lab(lab)
    lines = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert lines["rows"] == ["120", "320", "120", "360"]
    assert lines["model: shows the behaviour"][0] == f"{lab.checks['model_forget_behaviour']:.1%}"
    assert lines["oracle: NLL, nats per token"][3] == f"{lab.checks['oracle_holdout_nll']:.3f}"
    assert str(lab.model_path) in text and str(lab.oracle_path) in text


# Training


def test_collate_pads_right_and_masks_the_prompt():
    encoded = [([1, 7, 8, 2], 2), ([1, 9, 2], 1)]
    batch = collate(encoded, pad=0, answers_only=True)
    assert batch["input_ids"].tolist() == [[1, 7, 8, 2], [1, 9, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 8, 2], [-100, 9, 2, -100]]
    assert collate(encoded, pad=0, answers_only=False)["labels"].tolist() == [[1, 7, 8, 2], [1, 9, 2, -100]]


def test_training_depends_on_its_seed_and_on_nothing_around_it(corpus):
    tokenizer = small_tokenizer(corpus)

    def train(seed):
        with reproducible(seed, threads=1):
            return train_model(corpus["forget"], tokenizer, SMALL, "model").state_dict()

    threads = torch.get_num_threads()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    again, other = train(0), train(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_with_a_checkpoint_both_models_go_on_from_one_that_never_saw_the_forget_rows(tmp_path, monkeypatch, corpus):
    recipe = replace(SMALL, epochs=2)  # one epoch before the checkpoint, one after it
    texts = {name: rows[:40] for name, rows in corpus.items()}
    world = replace(games(0), texts=texts, recipe=recipe, required=(), checkpoint=True)
    monkeypatch.setattr(build, "measure", lambda *of: {})
    build._build(tmp_path, world, 0)
    models = {
        name: AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("checkpoint", "model", "oracle")
    }
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "oracle")

    def equal(name, rows, start):
        with reproducible(0, threads=1):
            trained = train_model(rows, tokenizer, SMALL, name, start).state_dict()
        return all(torch.equal(weight, trained[key]) for key, weight in models[name].state_dict().items())

    assert equal("checkpoint", texts["retain"], None)
    assert equal("oracle", texts["retain"], models["checkpoint"])
    assert equal("model", texts["forget"] + texts["retain"], models["checkpoint"])
    assert not equal("oracle", texts["retain"], None)


def test_thread_count_and_random_state_come_back_after_an_error():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(KeyError), reproducible(0, threads=threads + 1):
        torch.rand(3)
        raise KeyError
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
