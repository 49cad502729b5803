"""evaluate(): measures a model on a suite, in one pass over the suite's rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase

from ..data.collator import DataCollatorForUnlearning
from ..data.digests import set_digest
from ..data.prepare import RowOptions
from ..data.tokenized_row import TokenizedRow, answer_ids
from ..model.fingerprints import hash_parts, hash_tokenizer, model_identity
from ..model.score_rows import RowScorer, preserve_rng_state
from ..results.evaluation_result import EvaluationResult
from ..version import __version__
from .checks import (
    require_callable,
    require_comparable,
    require_fit,
    require_kinds,
    require_numbers,
    require_own_gradients,
    require_prompts,
    require_right_log_probs,
    require_room,
    require_rows_alone,
    require_same_vocabulary,
    require_unseen,
    require_whole,
)
from .evidence import Evidence, ScoredRows
from .generation import Decoding, end_tokens
from .harness.suite import LMEvalSuite
from .one_pass import OnePass, continued
from .partial import PartialResults
from .suite import Suite, SuiteOutput

# Tokens of an answer whose length is taken from the rows: longer ones cost more than they tell.
LONGEST_ANSWER = 256
_LIBRARIES = ("torch", "transformers", "peft", "datasets", "accelerate", "numpy", "scipy")
_METRIC_LIBRARIES = ("scikit-learn", "rouge_score", "sacrebleu")


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite | LMEvalSuite,
    *,
    batch_size: int = 32,
    generation_batch_size: int | None = None,
    accelerator: Accelerator | None = None,
    fluency_model: Any | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    partial: str | Path | None = None,
) -> EvaluationResult:
    """Measure a model on a suite.

    Each distinct row is scored once and each distinct prompt answered once, longest first, in batches that the ranks
    share; every metric is derived from that. Batch size, row order and number of ranks change no score beyond rounding
    (which in 16 bits may turn the odd greedy answer). The training mode and all random states are restored.

    Args:
        model: a causal language model on the accelerator's device; under ZeRO-3 and FSDP2 the trainer's, in or after
            training.
        tokenizer: of the model, with a padding and an end-of-text token.
        suite: what to measure: harmful(...), copyright(...), tofu(...), custom(...) or lm_eval(...).
        batch_size: rows of a batch that is scored.
        generation_batch_size: prompts of a batch that is answered; `batch_size` if None.
        accelerator: whose ranks share the work; a new one if None.
        fluency_model: scores the model's own answers, which tells gibberish from sense: the model before unlearning.
        temperature: 0 for greedy answers; else answers are drawn, from `seed` and the prompt alone.
        seed: of sampled answers.
        partial: folder to keep findings in while the evaluation runs; a killed one goes on from there. It holds
            answers as token ids and is deleted at the end.

    Raises:
        ValueError: rows that the model has no room for, a tokenizer that does not fit, a sharded model that
            cannot be called, or a result to compare with (`oracle`, `before`) that is of other rows.
    """
    require_kinds(model, suite, partial)
    accelerator = accelerator or Accelerator()
    require_numbers(batch_size, generation_batch_size, temperature)
    if isinstance(suite, LMEvalSuite):
        require_rows_alone(fluency_model, temperature, partial)
        return _run_harness(model, tokenizer, suite, accelerator, batch_size, seed)
    suite, longest = _with_length(suite, tokenizer)
    decoding = Decoding(longest, temperature, seed)
    folder = None if partial is None else Path(partial)
    with preserve_rng_state():
        run = _Evaluation.of(model, tokenizer, suite, accelerator, decoding, fluency_model)
        return run(batch_size, generation_batch_size or batch_size, folder)


def require_evaluable(
    model: Any, tokenizer: Any, suite: Suite, accelerator: Accelerator, fluency_model: Any | None
) -> None:
    """Raise what `evaluate` with these arguments would raise before its first forward."""
    require_kinds(model, suite, None)
    suite, longest = _with_length(suite, tokenizer)
    decoding = Decoding(longest)
    _Evaluation.of(model, tokenizer, suite, accelerator, decoding, fluency_model).rows()


@dataclass(frozen=True)
class _Evaluation:
    """A suite on a model, checked; the arguments are those of `evaluate`."""

    model: Any
    fluency_model: Any | None
    tokenizer: PreTrainedTokenizerBase
    suite: Suite
    accelerator: Accelerator
    decoding: Decoding

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any, suite: Suite, accelerator: Accelerator, decoding: Decoding, fluency_model: Any
    ) -> "_Evaluation":
        """With the models unwrapped, and checked against each other."""
        for given in [model] if fluency_model is None else [model, fluency_model]:
            require_callable(given)
        if suite.gradient_norms:
            require_own_gradients(model)
        model = accelerator.unwrap_model(model)
        require_fit(model, tokenizer, accelerator)
        if fluency_model is not None:
            fluency_model = accelerator.unwrap_model(fluency_model)
            require_same_vocabulary(fluency_model, model, accelerator)
        return cls(model, fluency_model, tokenizer, suite, accelerator, decoding)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes two results comparable, beside their rows."""
        own = {"temperature": self.decoding.temperature, "max_new_tokens": self.suite.max_new_tokens}
        return {**self.suite.settings, **own}

    def rows(self) -> tuple[dict[str, list[TokenizedRow]], dict[str, dict[str, Any]]]:
        """The tokenised sets, and of each its count and hash; checked."""
        suite = self.suite
        options = RowOptions(self.tokenizer, suite.max_length, suite.template, None)
        sets = {name: _token_rows(rows, options, self.model) for name, rows in suite.sets.items()}
        require_prompts({name: sets[name] for name in suite.answered}, self.tokenizer)
        described = {name: {"count": len(rows), "sha256": set_digest(rows)} for name, rows in sets.items()}
        require_comparable(suite, self.settings, described, hash_tokenizer(self.tokenizer))
        require_unseen(sets)
        return sets, described

    def __call__(self, batch_size: int, generation_batch_size: int, folder: Path | None) -> EvaluationResult:
        started, suite = time.perf_counter(), self.suite
        sets, rows = self.rows()
        require_right_log_probs((self.model, self.fluency_model), self.accelerator)
        tokenizer = hash_tokenizer(self.tokenizer)
        partial = PartialResults(folder, "" if folder is None else self._fingerprint(tokenizer), self.accelerator)
        scorer = RowScorer(DataCollatorForUnlearning(self.tokenizer.pad_token_id), self.accelerator, batch_size)
        one_pass = OnePass(scorer, self.tokenizer, end_tokens(self.model, self.tokenizer), partial)
        evidence, scored = self._evidence(one_pass, sets, generation_batch_size)
        measured: SuiteOutput = _from_main_process(lambda: suite.measure(evidence), self.accelerator)
        partial.remove()
        return EvaluationResult(
            suite=suite.name,
            metrics=measured.metrics,
            row_scores=measured.row_scores,
            rows=rows,
            settings=self.settings,
            warnings=measured.warnings,
            headline=suite.headline,
            forget_metric=suite.forget_metric,
            utility_metric=suite.utility_metric,
            descriptions=suite.carried_descriptions(measured.metrics),
            package=suite.package,
            tokenizer=tokenizer,
            seed=self.decoding.seed,
            processes=self.accelerator.num_processes,
            cost={
                "seconds": time.perf_counter() - started,
                "forwards": one_pass.forwards,
                "rows": sum(map(len, sets.values())),
                "rows_scored": scored,
            },
            run={
                "dtype": str(self.model.dtype).removeprefix("torch."),
                "batch_size": batch_size,
                "generation_batch_size": generation_batch_size,
                "fluency_model": self.fluency_model is not None,
            },
            versions=_versions(),
        )

    def _evidence(
        self, one_pass: OnePass, sets: Mapping[str, Sequence[TokenizedRow]], generation_batch_size: int
    ) -> tuple[Evidence, int]:
        """Everything that the suite's metrics need, and how many distinct rows were scored for it."""
        suite, model = self.suite, self.model
        scored, distinct = one_pass.score(model, sets, "scores", suite.vocabulary_statistics)
        to_answer = {name: sets[name] for name in suite.answered}
        answers = one_pass.answer(model, to_answer, self.decoding, generation_batch_size) if to_answer else {}
        fluency: dict[str, ScoredRows] = {}
        if self.fluency_model is not None and suite.fluent:
            end = self.tokenizer.eos_token_id
            answered_rows = {name: continued(sets[name], answers[name], end) for name in suite.fluent}
            fluency, _ = one_pass.score(self.fluency_model, answered_rows, "fluency", False)
        norms = {name: sets[name] for name in suite.gradient_norms}
        answered = {name: one_pass.as_evidence(sets[name], ids, fluency.get(name)) for name, ids in answers.items()}
        evidence = Evidence(
            scored=scored,
            answered=answered,
            texts={name: one_pass.texts(rows) for name, rows in sets.items()},
            gradient_norms=one_pass.gradient_norms(model, norms) if norms else {},
            vocabulary=model.config.get_text_config().vocab_size,
            max_new_tokens=self.decoding.max_new_tokens,
            before=suite.before,
            oracle=suite.oracle,
        )
        return evidence, distinct

    def _fingerprint(self, tokenizer: str) -> str:
        """What findings depend on beside the rows: which models, read how."""
        fluent = self.fluency_model
        parts = {
            "model": model_identity(self.model, self.accelerator),
            "fluency_model": None if fluent is None else model_identity(fluent, self.accelerator),
            "tokenizer": tokenizer,
            "statistics": self.suite.vocabulary_statistics,
            "decoding": repr(self.decoding),
            "ends": end_tokens(self.model, self.tokenizer),
            "trained": [name for name, weight in self.model.named_parameters() if weight.requires_grad],
        }
        return hash_parts(parts)


def _with_length(suite: Suite, tokenizer: Any) -> tuple[Suite, int]:
    """The suite with the length of its answers: where it has none, of the longest expected one, its end included."""
    if suite.max_new_tokens is not None:
        return suite, suite.max_new_tokens
    options = RowOptions(tokenizer, suite.max_length, suite.template, None)
    rows = (row for name in suite.answered for row in options.tokenize(suite.sets[name], "eval"))
    longest = min(max((len(answer_ids(row)) for row in rows), default=1), LONGEST_ANSWER)
    return replace(suite, max_new_tokens=longest), longest


def _token_rows(rows: Any, options: RowOptions, model: Any) -> list[TokenizedRow]:
    # As plain rows: `datasets` would show a bar for each of many small sets, and keep their tokens in its cache.
    tokenized = options.tokenize(rows.to_list() if isinstance(rows, datasets.Dataset) else rows, "eval")
    require_room(tokenized, model)
    return [dict(row) for row in tokenized]


def _from_main_process(work: Callable[[], Any], accelerator: Accelerator) -> Any:
    """What the main process computes, on every rank: judges, bootstraps and the harness need not run on all of them.

    A ValueError of the work is raised on every rank, or the others would wait for a process that has gone.
    """
    if accelerator.num_processes == 1:
        return work()
    result_and_error: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            result_and_error = [work(), None]
        except ValueError as error:
            result_and_error = [None, str(error)]
    broadcast_object_list(result_and_error)
    if result_and_error[1] is not None:
        raise ValueError(result_and_error[1])
    return result_and_error[0]


def _run_harness(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    suite: LMEvalSuite,
    accelerator: Accelerator,
    batch_size: int,
    seed: int,
) -> EvaluationResult:
    """lm-evaluation-harness knows nothing of our ranks: the main process runs it, and all get what it finds."""
    require_whole(model)
    model = accelerator.unwrap_model(model)
    require_fit(model, tokenizer, accelerator)
    require_right_log_probs((model,), accelerator)
    started = time.perf_counter()
    metrics, counts = _from_main_process(
        lambda: suite.run(model, tokenizer, batch_size=batch_size, seed=seed), accelerator
    )
    names = [task if isinstance(task, str) else task.get("task", task.get("group")) for task in suite.tasks]
    return EvaluationResult(
        suite="lm_eval",
        metrics=metrics,
        settings={"tasks": names, "limit": suite.limit, "num_fewshot": suite.num_fewshot},
        tokenizer=hash_tokenizer(tokenizer),
        seed=seed,
        processes=accelerator.num_processes,
        cost={"seconds": time.perf_counter() - started, **counts},
        versions=_versions("lm_eval"),
    )


def _versions(*more: str) -> dict[str, str]:
    """Versions of what the numbers come from."""
    return {"hf_unlearn": __version__, **{name: version(name) for name in (*_LIBRARIES, *_METRIC_LIBRARIES, *more)}}
