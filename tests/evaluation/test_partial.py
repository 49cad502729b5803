"""Evaluations that are killed and go on: what is done again, what comes out, and what lies on disk meanwhile."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.models import FORGET, HOLDOUT, RETAIN, perturbed, tiny_model, tiny_tokenizer
from hf_unlearn.evaluation import EvaluationResult, custom, evaluate, one_pass
from hf_unlearn.evaluation.generation_trial import prompt_batches

PARTS = ("Expected ", "\nGot: ", "\nWhy it matters: ", "\nWhat to do: ")
CANARY = "zorvex"
# 24 distinct rows and, without the ten of holdout, 14 distinct prompts.
SETS = {
    "forget": [row | {"completion": f" {CANARY}{row['completion']}"} for row in FORGET[:8]],
    "retain": [row | {"prompt": f"{CANARY} {row['prompt']}"} for row in RETAIN[:6]],
    "holdout": HOLDOUT,
}
BATCH, SCORED, ASKED = 4, 6, 4  # rows of a batch; batches that are scored, and those that are answered


class Killed(BaseException):
    """What no handler for errors stops, as a signal is."""


class Run:
    """Evaluations of one model that can be killed, with counts of what each has done.

    Attributes:
        scored, asked: rows of each batch that the last start has scored, and prompts that it has answered.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.model, self.scored, self.asked = tiny_model(), [], []
        prompt_batches(self.model, contextlib.nullcontext, contextlib.nullcontext)  # tried once for a model
        self.settings = dict(batch_size=BATCH, temperature=1.0) | settings
        self.last: dict[str, int] = {}  # by kind of work, the batch that is the last
        figures, generate = one_pass.token_figures, self.model.generate

        def scoring(scores: Any) -> Any:
            self._count("scored", len(scores.lengths))
            return figures(scores)

        def generating(**inputs: Any) -> Any:
            self._count("asked", len(inputs["input_ids"]))
            return generate(**inputs)

        monkeypatch.setattr(one_pass, "token_figures", scoring)
        monkeypatch.setattr(self.model, "generate", generating)

    def _count(self, kind: str, rows: int) -> None:
        done = getattr(self, kind)
        if len(done) == self.last.get(kind):
            raise Killed
        done.append(rows)

    def __call__(self, folder: Path | None, *, sets=SETS, model=None, suite=None, **changed: Any) -> EvaluationResult:
        self.scored.clear(), self.asked.clear()
        suite = suite or custom(**sets, attacks=("loss", "min_k_plus_plus"), max_new_tokens=6)
        return evaluate(model or self.model, tiny_tokenizer(), suite, partial=folder, **self.settings | changed)

    def killed(self, folder: Path, **last: int) -> None:
        """An evaluation that dies after so many batches of a kind."""
        self.last = last
        with pytest.raises(Killed):
            self(folder)
        self.last = {}


@pytest.fixture
def run(monkeypatch) -> Run:
    return Run(monkeypatch)


@pytest.fixture
def whole(run) -> EvaluationResult:
    """What an evaluation finds that nobody interrupts."""
    result = run(None)
    assert (len(run.scored), len(run.asked)) == (SCORED, ASKED)
    return result


def assert_same(one: EvaluationResult, other: EvaluationResult) -> None:
    assert one.metrics.keys() == other.metrics.keys() and len(set(one.values().values())) > 10
    assert one.values() == pytest.approx(other.values(), rel=1e-5, abs=1e-7)
    for name, scores in other.row_scores.items():
        assert one.row_scores[name] == pytest.approx(scores, rel=1e-5)
    assert (one.rows, one.settings, one.warnings) == (other.rows, other.settings, other.warnings)


@pytest.mark.parametrize("batches", [0, 1, 4])
def test_an_evaluation_that_was_killed_while_scoring_goes_on(run, whole, tmp_path, batches):
    folder = tmp_path / "partial"
    run.killed(folder, scored=batches)
    assert folder.is_dir()
    result = run(folder)
    assert run.scored == [BATCH] * (SCORED - batches) and len(run.asked) == ASKED
    assert result.cost["forwards"] == SCORED - batches and result.cost["rows_scored"] == 24
    assert_same(result, whole)
    assert not folder.exists()


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_an_evaluation_that_was_killed_while_answering_goes_on(run, whole, tmp_path, batches):
    folder = tmp_path / "partial"
    run.killed(folder, asked=batches)
    result = run(folder)
    assert run.scored == [] and len(run.asked) == ASKED - batches and sum(run.asked) == 14 - batches * BATCH
    assert_same(result, whole)
    assert not folder.exists()


def test_an_evaluation_may_be_killed_again_and_again(run, whole, tmp_path):
    folder = tmp_path / "partial"
    for last in ({"scored": 1}, {"scored": 2}, {"scored": 1}, {"asked": 1}, {"asked": 2}):
        run.killed(folder, **last)
    assert len(list(folder.iterdir())) == 5
    assert_same(run(folder), whole)
    assert (run.scored, run.asked) == ([], [2])


def test_what_a_judge_breaks_is_not_lost(run, whole, tmp_path):
    suite = custom(**SETS, attacks=("loss", "min_k_plus_plus"), max_new_tokens=6)

    def broken(evidence: Any) -> Any:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path / "partial", suite=replace(suite, measure=broken))
    assert_same(run(tmp_path / "partial"), whole)
    assert run.scored == run.asked == []


def test_another_batch_size_and_further_rows_go_on_from_what_is_there(run, whole, tmp_path):
    folder = tmp_path / "partial"
    run.killed(folder, asked=0)
    more = SETS | {"retain": [*SETS["retain"], *RETAIN[20:23]]}
    result = run(folder, sets=more, batch_size=2)
    assert run.scored == [2, 1] and sum(run.asked) == 17
    assert result.metrics["retain_nll"].n == 9 and result["forget_nll"].value == pytest.approx(
        whole["forget_nll"].value
    )


def test_a_torn_last_line_is_found_again(run, whole, tmp_path):
    folder = tmp_path / "partial"
    run.killed(folder, scored=3)
    (file,) = folder.iterdir()
    written = file.read_bytes()
    file.write_bytes(written[:-200])
    assert_same(run(folder), whole)
    assert run.scored == [BATCH] * (SCORED - 2)


def test_a_file_that_was_torn_at_its_start_is_no_obstacle(run, whole, tmp_path):
    folder = tmp_path / "partial"
    run.killed(folder, scored=2)
    (folder / "rank1-0.jsonl").write_text("")
    (folder / "rank2-0.jsonl").write_text('{"finger')
    assert_same(run(folder), whole)
    assert len(run.scored) == SCORED - 2


def refused(make: Any) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    message = str(caught.value)
    places = [message.find(part) for part in PARTS]
    assert places == sorted(places) and places[0] == 0, message
    assert "those of another evaluation" in message and CANARY not in message


OTHERS = {
    "another model": dict(model=perturbed(tiny_model())),
    "another temperature": dict(temperature=0.5),
    "another seed": dict(seed=1),
    "a fluency model": dict(fluency_model=tiny_model(seed=1)),
    "longer answers": dict(suite=custom(**SETS, attacks=("loss", "min_k_plus_plus"), max_new_tokens=7)),
    "fewer figures": dict(suite=custom(**SETS, attacks=("loss",), max_new_tokens=6)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_findings_of_another_evaluation_are_refused_and_left_alone(run, whole, tmp_path, other):
    folder = tmp_path / "partial"
    run.killed(folder, asked=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(lambda: run(folder, **OTHERS[other]))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run.scored == run.asked == []
    assert_same(run(folder), whole)


def test_nobody_else_can_read_the_findings_and_no_text_is_among_them(run, tmp_path):
    umask = os.umask(0)
    try:
        run.killed(tmp_path / "of a run" / "partial", asked=2)
    finally:
        os.umask(umask)
    folder = tmp_path / "of a run" / "partial"
    assert folder.stat().st_mode & 0o777 == 0o700
    (file,) = folder.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 1 + SCORED + 2 and [line[0] for line in lines[1:]] == ["scores"] * SCORED + ["answers"] * 2
    assert CANARY not in file.read_text()


def test_nobody_else_can_read_the_findings_in_a_folder_that_was_there(run, tmp_path):
    (tmp_path / "partial").mkdir(mode=0o755)
    run.killed(tmp_path / "partial", asked=2)
    (file,) = (tmp_path / "partial").glob("*.jsonl")
    assert (tmp_path / "partial").stat().st_mode & 0o077 == 0 or file.stat().st_mode & 0o077 == 0


def test_files_of_others_survive(run, tmp_path):
    """A run's own output folder may well be named."""
    (tmp_path / "model.safetensors").write_text("weights")
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_foreign_file_is_refused(run, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": CANARY}) + "\n")
    refused(lambda: run(tmp_path))


@pytest.mark.parametrize("other", ["tokens that end an answer", "what is trainable"])
def test_findings_of_the_same_weights_read_otherwise_are_refused(run, tmp_path, other):
    """Answers end at the model's own end tokens; gradient norms are those of what is trainable."""
    suite = custom(**SETS, attacks=("gradient_norm",), max_new_tokens=6)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "partial", suite=replace(suite, measure=lambda evidence: 1 / 0))
    if other == "what is trainable":
        run.model.model.requires_grad_(False)
    else:
        run.model.generation_config.eos_token_id = [2, *range(40, 200)]
    refused(lambda: run(tmp_path / "partial", suite=suite))
