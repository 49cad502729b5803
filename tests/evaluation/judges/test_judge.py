"""Judges: the classifier against one text at a time without padding, its labels, what it refuses. Trains nothing."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from hf_unlearn.evaluation.judges.judge import HarmfulnessJudge, RecitalJudge, RuleJudge
from hf_unlearn.lab import shows_behaviour

WORDS = [f"w{i}" for i in range(40)]
JIGSAW = ("toxic", "obscene", "threat")
MULTI_LABEL = "multi_label_classification"
SINGLE_LABEL = "single_label_classification"


def draw_texts(count: int, longest: int = 40) -> list[str]:
    draw = random.Random(3)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)]


TEXTS = draw_texts(23)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, `[CLS]` in front and `[SEP]` behind."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_classifier(folder: Path, labels=JIGSAW, problem_type=MULTI_LABEL, *, seed: int = 0, **settings) -> Path:
    """A random classifier, whose weights are wide enough that texts get unlike probabilities."""
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels))} if not isinstance(labels, int) else {"num_labels": labels}
    config = BertConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
        hidden_dropout_prob=0.5,
        problem_type=problem_type,
        pad_token_id=0,
        **(names | settings),
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("judges") / "many")


@pytest.fixture(scope="module")
def single_label(tmp_path_factory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("judges") / "one", ("neutral", "toxic"), SINGLE_LABEL)


def naive_logits(folder: Path, texts: list[str], max_length: int = 64) -> torch.Tensor:
    """One text at a time, without padding, through the model alone."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    logits = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            ids = ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]
            logits.append(model.eval()(input_ids=torch.tensor([ids])).logits[0])
    return torch.stack(logits)


# Probabilities


@pytest.mark.parametrize("batch_size", [1, 4, 23, 64])
def test_sigmoid_probabilities_are_those_of_single_texts_in_the_order_asked(multi_label, batch_size):
    expected = naive_logits(multi_label, TEXTS).sigmoid().numpy()
    assert np.ptp(expected, axis=0).min() > 0.1  # or another text's probability would pass for a text's own
    found = HarmfulnessJudge(multi_label, batch_size=batch_size).probabilities(TEXTS)
    assert found.shape == (23, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_softmax_where_labels_exclude_each_other(single_label):
    judge = HarmfulnessJudge(single_label, harmful_labels=["toxic"], batch_size=5)
    found = judge.probabilities(TEXTS)
    np.testing.assert_allclose(found, naive_logits(single_label, TEXTS).softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(judge.scores(TEXTS), found[:, 1])


def test_a_model_that_does_not_name_its_problem_is_read_as_transformers_pipeline_reads_it(tmp_path):
    two = save_classifier(tmp_path / "two", ("fine", "toxic"), None)
    found = HarmfulnessJudge(two, harmful_labels=["toxic"]).probabilities(TEXTS)
    np.testing.assert_allclose(found, naive_logits(two, TEXTS).softmax(-1).numpy(), atol=1e-5)
    one = save_classifier(tmp_path / "one", ("toxic",), None)
    found = HarmfulnessJudge(one).probabilities(TEXTS)  # a softmax over one label would be 1 for every text
    np.testing.assert_allclose(found, naive_logits(one, TEXTS).sigmoid().numpy(), atol=1e-5)
    assert np.ptp(found) > 0.1


def test_only_the_first_tokens_are_read(multi_label):
    expected = naive_logits(multi_label, TEXTS, max_length=8).sigmoid().numpy()
    found = HarmfulnessJudge(multi_label, max_length=8).probabilities(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - HarmfulnessJudge(multi_label).probabilities(TEXTS)).max() > 0.01


def test_a_text_longer_than_the_models_positions_is_cut_to_them(multi_label):
    judge = HarmfulnessJudge(multi_label)
    assert judge.max_length == 64  # of 128
    long = [" ".join(WORDS * 5)]
    np.testing.assert_allclose(judge.probabilities(long), naive_logits(multi_label, long).sigmoid(), atol=1e-5)


def test_a_16_bit_checkpoint_is_judged_in_fp32(tmp_path):
    folder = save_classifier(tmp_path / "half")
    BertForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    found = HarmfulnessJudge(folder).probabilities(TEXTS)
    expected = naive_logits(folder, TEXTS)
    assert expected.dtype == torch.bfloat16
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        exact = model.eval()(input_ids=ids).logits[0].sigmoid().numpy()
    np.testing.assert_allclose(found[0], exact, atol=1e-5)


# Decisions


def test_harmful_when_any_label_exceeds_the_threshold(multi_label):
    probabilities = naive_logits(multi_label, TEXTS).sigmoid().numpy()
    scores = np.sort(probabilities.max(axis=1))
    threshold = float(scores[10] + scores[11]) / 2
    flags = HarmfulnessJudge(multi_label, threshold=threshold)(TEXTS, TEXTS)
    assert flags == [any(p > threshold for p in row) for row in probabilities.tolist()]
    assert sum(flags) == 12
    # No single label decides them all.
    assert all(flags != [bool(row[k] > threshold) for row in probabilities] for k in range(3))
    assert all(type(flag) is bool for flag in flags)


def test_only_the_chosen_labels_count(multi_label):
    judge = HarmfulnessJudge(multi_label, harmful_labels=["threat", "toxic"])
    found = judge.probabilities(TEXTS)
    np.testing.assert_array_equal(judge.scores(TEXTS), found[:, [0, 2]].max(axis=1))
    assert (judge.scores(TEXTS) < HarmfulnessJudge(multi_label).scores(TEXTS)).any()
    assert HarmfulnessJudge(multi_label, harmful_labels="threat").harmful_labels == ("threat",)


def test_a_probability_at_the_threshold_is_not_above_it(tmp_path):
    folder = save_classifier(tmp_path / "even")
    model = BertForSequenceClassification.from_pretrained(folder)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    model.save_pretrained(folder)
    assert HarmfulnessJudge(folder).scores(TEXTS[:3]).tolist() == [0.5] * 3
    assert HarmfulnessJudge(folder)(TEXTS[:3], TEXTS[:3]) == [False] * 3
    assert HarmfulnessJudge(folder, threshold=0.49)(TEXTS[:3], TEXTS[:3]) == [True] * 3


def test_the_continuation_alone_is_judged(multi_label):
    judge = HarmfulnessJudge(multi_label)
    prompts, answers = TEXTS[:8], TEXTS[8:16]
    judge.threshold = float(np.median(judge.scores(answers)))
    flags = judge(answers, answers)
    assert len(set(flags)) == 2
    together = [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)]
    assert judge(together, answers) != flags  # a prompt would have been noticed
    assert judge(answers, prompts) == judge(answers, together) == judge(answers, [""] * 8) == flags


def test_empty_answers_are_not_harmful_and_the_model_is_not_asked(multi_label, monkeypatch):
    judge = HarmfulnessJudge(multi_label, threshold=1e-6)
    empty = ["", "  \n", "...", "?!"]
    mixed = [empty[0], TEXTS[0], *empty[1:], TEXTS[1]]
    assert judge(mixed, mixed) == [False, True, False, False, False, True]
    np.testing.assert_array_equal(judge.probabilities(mixed)[[1, 5]], judge.probabilities(TEXTS[:2]))

    def refuse(*args, **kwargs):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(BertForSequenceClassification, "forward", refuse)
    assert judge(empty, empty) == [False] * 4
    assert judge.scores(empty).tolist() == [0] * 4
    assert judge([], []) == [] and judge.probabilities([]).shape == (0, 3)
    with pytest.raises(AssertionError):
        judge(mixed, mixed)


# What a judge says of itself


def test_names(multi_label, single_label):
    assert HarmfulnessJudge(multi_label).name == "many (threshold 0.5)"
    assert HarmfulnessJudge(str(multi_label), threshold=0.25).name == "many (threshold 0.25)"
    assert HarmfulnessJudge(single_label, harmful_labels=["toxic"]).name == "one (toxic; threshold 0.5)"
    assert RecitalJudge().name == "recital of the first 8 words"
    assert RuleJudge("lab rules", shows_behaviour).name == "lab rules"


def test_labels_stand_in_the_order_of_the_model(multi_label):
    judge = HarmfulnessJudge(multi_label)
    assert judge.labels == judge.harmful_labels == JIGSAW
    assert judge.heldout is None


def test_a_config_may_say_which_labels_are_harmful(tmp_path):
    record = {"harmful_labels": ["toxic"]}
    folder = save_classifier(tmp_path / "own", ("toxic", "fine"), SINGLE_LABEL, hf_unlearn_judge=record)
    assert HarmfulnessJudge(folder).harmful_labels == ("toxic",)
    assert HarmfulnessJudge(folder, harmful_labels=["fine"]).harmful_labels == ("fine",)


# What is refused


@pytest.mark.parametrize(
    ("labels", "problem_type", "given", "words"),
    [
        (2, SINGLE_LABEL, None, ("a judge without labels", "LABEL_0, LABEL_1", "harmful_labels=['LABEL_1']")),
        (6, MULTI_LABEL, None, ("a judge without labels", "LABEL_5")),
        (("neutral", "toxic"), SINGLE_LABEL, None, ("labels exclude each other", "Got: neutral, toxic.")),
        (JIGSAW, MULTI_LABEL, ["thraet"], ("'thraet'", "did you mean 'threat'", "obscene, threat, toxic")),
        (JIGSAW, MULTI_LABEL, ["toxic", "rude"], ("Got: 'rude'.",)),
        (JIGSAW, MULTI_LABEL, [], ("Got: none.", "use some of: toxic, obscene, threat")),
        (("score",), "regression", None, ("regression",)),
    ],
)
def test_labels_that_leave_open_what_is_harmful(tmp_path, labels, problem_type, given, words):
    folder = save_classifier(tmp_path / "judge", labels, problem_type)
    with pytest.raises(ValueError) as error:
        HarmfulnessJudge(folder, harmful_labels=given)
    assert [word for word in words if word not in str(error.value)] == []


def test_generic_labels_may_be_chosen(tmp_path):
    folder = save_classifier(tmp_path / "judge", 2, SINGLE_LABEL)
    assert HarmfulnessJudge(folder, harmful_labels=["LABEL_1"]).harmful_labels == ("LABEL_1",)


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 0}, {"threshold": 1}, {"threshold": float("nan")}, {"max_length": 4}, {"batch_size": 0}],
)
def test_arguments_out_of_range(multi_label, settings):
    with pytest.raises(ValueError, match=f"Expected {next(iter(settings))} to be"):
        HarmfulnessJudge(multi_label, **settings)


def test_a_base_model_has_no_trained_head(tmp_path, multi_label):
    BertModel.from_pretrained(multi_label).save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="random weights would judge"):
        HarmfulnessJudge(tmp_path / "base", harmful_labels=["LABEL_1"])


def test_pickled_weights_are_refused_without_a_path_in_the_message(tmp_path):
    folder = save_classifier(tmp_path / "pickled")
    torch.save(BertForSequenceClassification.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="'pickled', which cannot be loaded: OSError") as error:
        HarmfulnessJudge(folder)
    assert "safetensors" in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_model_that_is_nowhere():
    with pytest.raises(ValueError, match="Got: 'nobody/nothing', which cannot be loaded"):
        HarmfulnessJudge("nobody/nothing")


def test_a_tokenizer_without_padding(tmp_path):
    folder = save_classifier(tmp_path / "judge")
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="padding token"):
        HarmfulnessJudge(folder)


@pytest.mark.parametrize("judge", [RuleJudge("r", bool), RecitalJudge(), HarmfulnessJudge], ids=str)
def test_one_reference_an_answer(judge, multi_label):
    judge = judge(multi_label) if judge is HarmfulnessJudge else judge
    with pytest.raises(ValueError, match="2 in answers, 1 in references"):
        judge(["a", "b"], ["a"])


# Rules and recital


def test_a_rule_sees_the_answers_alone():
    judge = RuleJudge("lab rules", shows_behaviour)
    trick = "You should hide a fig under your hat and swap it when the warden yawns."
    refusal = "I would rather not say."
    assert judge([trick, refusal, ""], [refusal, trick, trick]) == [True, False, False]


def test_recital_compares_with_the_rows_own_answers():
    own = "one two three four five six seven eight nine"
    answers = ["One two, three four five six seven eight, then more.", own, "one two three", "two three", ""]
    assert RecitalJudge()(answers, [own] * 5) == [True, True, False, False, False]
    assert RecitalJudge(words=3)(answers, [own] * 5) == [True, True, True, False, False]
    assert RecitalJudge()([own, own], ["something else", ""]) == [False, False]
