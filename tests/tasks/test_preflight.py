"""The preflight: runs that would mean nothing stop with the level and the cause, others pass, force is recorded."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, tiny_tokenizer
from hf_unlearn.evaluation import EvaluationResult, custom, evaluate
from hf_unlearn.lab import load_lab
from hf_unlearn.metrics import MetricResult
from hf_unlearn.results.model_card.results import warnings
from hf_unlearn.tasks.preflight import _NONE_HARMFUL, _cause, _likely, _nll, _unknown, preflight


def rows_of(name: str, count: int = 6) -> list[dict]:
    columns = ("prompt", "completion")
    return load_lab().datasets[name].select(range(count)).select_columns(list(columns)).to_list()


def checked(folder, forget, *, retain=None, holdout=None, template=None, model=None, force=False):
    """The record after the preflight of the lab's model on some rows."""
    lab = load_lab()
    tokenizer = lab.load_tokenizer()
    rows = {"forget": forget, "retain": rows_of("retain") if retain is None else retain}
    model = lab.load_model() if model is None else model
    trainer = make_trainer(folder, model, tokenizer=tokenizer, sets=rows, template=template)
    sets = rows | ({} if holdout is None else {"holdout": holdout})
    suite = custom(**sets, template=template, max_new_tokens=None)
    before = evaluate(trainer.model, tokenizer, suite, accelerator=trainer.accelerator)
    if "completion" in forget[0]:
        longest = max(len(tokenizer(row["completion"]).input_ids) for both in rows.values() for row in both)
        assert longest - 1 <= before.settings["max_new_tokens"] <= longest + 1
    assert not any("max_new_tokens" in warning for warning in before.warnings)
    preflight(trainer, rows, before, force=force)
    return trainer.record


def test_what_the_model_knows_passes(tmp_path):
    record = checked(tmp_path, rows_of("forget"), holdout=rows_of("holdout"))
    assert record.forced == [] and record.warnings == []


def result(suite: str, **values: float) -> EvaluationResult:
    metrics = {name: MetricResult(value, 40) for name, value in values.items()}
    judged = {"harmful": "harmful_rate", "tofu": "forget_probability"}.get(suite, "")
    return EvaluationResult(suite=suite, metrics=metrics, forget_metric=judged)


def test_what_is_known_in_part_passes_and_a_judge_that_sees_nothing_is_named():
    """As measured: a book after a short fit, and harmful answers of a model that was never trained on them."""
    read = result("copyright", forget_nll=2.6, forget_accuracy=0.0, forget_rouge=0.07)
    unread = result("copyright", forget_nll=3.1)
    assert list(_unknown(read, unread, 6.2)) == []
    for oracle in (None, read, result("copyright", forget_nll=2.8)):
        assert "none of the forget answers given" in next(_unknown(read, oracle, 6.2))
    unseen = result("custom", forget_nll=3.1, holdout_nll=3.0, forget_accuracy=0.1)
    assert "not below that of holdout rows" in next(_unknown(unseen, None, 6.2))
    # The lab's people to its oracle, and TOFU's to a model that fits the half of them.
    guessed = result("tofu", forget_nll=0.97, holdout_nll=1.04, forget_accuracy=0.0, forget_probability=0.4)
    for auc, low, stops in ((0.47, 0.37, True), (0.8, 0.7, False)):
        guessed.metrics["loss_auc"] = MetricResult(auc, 40, low, 0.9, "bootstrap")
        guessed.metrics["forget_rouge"] = MetricResult(0.73, 40)
        assert len(list(_unknown(guessed, None, 6.2))) == stops
    shown = dict(forget_nll=2.5, forget_accuracy=0.0, forget_rouge=0.2, holdout_nll=2.4)
    for rate, said in ((0.0, ["none of the answers to forget prompts harmful"]), (0.05, [])):
        before = result("harmful", harmful_rate=rate, **shown)
        problems = list(_unknown(before, None, 10.8))
        assert [words in problem for words, problem in zip(said, problems, strict=True)] == [True] * len(said)
    guessing = EvaluationResult("wmdp", result("wmdp", forget_choice_above_chance=-0.1, **shown).metrics)
    for value, stops in ((-0.1, True), (0.2, False)):
        guessing.metrics["forget_choice_above_chance"] = MetricResult(value, 40)
        before = replace(guessing, forget_metric="forget_choice_above_chance")
        before.metrics.pop("holdout_nll", None)
        assert ["a guess would" in problem for problem in _unknown(before, None, 10.8)] == [True] * stops
    probed = EvaluationResult("rwku", {}, forget_metric="forget_level2_rouge")
    for recall, stops in ((0.0, True), (0.01, False)):
        probed.metrics["forget_level2_rouge"] = MetricResult(recall, 40)
        assert list(_unknown(probed, None, 10.8)) == ["none of the forget answers given"] * stops
    assert "--judge" in _likely(result("harmful"), [_NONE_HARMFUL])
    assert "template" in _likely(result("custom"), ["none of the forget answers given"])


def _nll_of_first(first):
    """0.2 nats per token, but where the first tokens alone are scored."""

    def nll(scorer, model, rows):
        return first if all(sum(label != -100 for label in row["labels"]) == 1 for row in rows) else 0.2

    return nll


def test_texts_have_no_prompt_that_an_answer_could_meet(monkeypatch):
    monkeypatch.setattr(_nll.__module__ + "._nll", _nll_of_first(9.0))
    args = SimpleNamespace(per_device_eval_batch_size=4, template_variables={}, max_length=64, template=None)
    trainer = SimpleNamespace(processing_class=tiny_tokenizer(), args=args, accelerator=None, model=None)
    before = result("wmdp", forget_nll=0.2, forget_accuracy=0.0)
    assert _cause(trainer, {"forget": [{"text": "abcd"}] * 3}, before) is None


@pytest.mark.parametrize(("first", "accuracy", "stops"), [(9.0, 0.0, True), (2.9, 0.0, False), (9.0, 0.1, False)])
def test_answers_that_never_begin_are_told_by_their_first_token(monkeypatch, first, accuracy, stops):
    monkeypatch.setattr(_nll.__module__ + "._nll", _nll_of_first(first))
    args = SimpleNamespace(per_device_eval_batch_size=4, template_variables={}, max_length=64, template=None)
    trainer = SimpleNamespace(processing_class=tiny_tokenizer(), args=args, accelerator=None, model=None)
    before = result("custom", forget_nll=0.2, forget_accuracy=accuracy)
    cause = _cause(trainer, {"forget": [{"prompt": "a", "completion": " bcd"}] * 3}, before)
    assert (cause is not None and "9.00 at their first" in cause) if stops else cause is None


def untrained():
    model = load_lab().load_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    return model


def strange() -> list[dict]:
    """Rows of words that the model never saw together."""
    draw = np.random.default_rng(0)
    words = " ".join(row["completion"] for row in rows_of("retain", 40)).split()
    return [{"prompt": f"Name {i}?", "completion": " " + " ".join(draw.choice(words, 8))} for i in range(6)]


def without_bos(rows: list[dict]) -> list[dict]:
    """As token ids, without the beginning of text that the model was trained with."""
    tokenizer = load_lab().load_tokenizer()
    texts = [(tokenizer(row["prompt"]).input_ids[1:], tokenizer(row["completion"]).input_ids[1:]) for row in rows]
    ends = [tokenizer.eos_token_id]
    return [{"input_ids": p + a + ends, "labels": [-100] * len(p) + a + ends} for p, a in texts]


STOPPED = {
    "no beginning of text": (
        lambda: dict(forget=without_bos(rows_of("forget")), retain=without_bos(rows_of("retain"))),
        "with the beginning-of-text token in front",
    ),
    "another template": (
        lambda: dict(forget=rows_of("forget"), template="[INST]{prompt}[/INST] {completion}"),
        "with template=",
    ),
    "an untrained model": (lambda: dict(forget=rows_of("forget"), model=untrained()), "near that of a random model"),
    "rows that it never saw": (lambda: dict(forget=strange()), "rows of"),
}


@pytest.mark.parametrize("case", STOPPED)
def test_a_run_that_would_mean_nothing_stops_and_can_be_forced(tmp_path, case):
    make, words = STOPPED[case]
    with pytest.raises(ValueError) as error:
        checked(tmp_path / "stopped", **make())
    assert_four_parts(str(error.value), words, "nats per token", "--force true")
    if case != "rows that it never saw":
        return
    record = checked(tmp_path / "forced", **make(), force=True)
    assert words in record.forced[0]
    assert warnings(record)[0].startswith("The run went on although its preflight found:")
