"""evaluate(): measures a model on a suite, in one pass over the suite's rows."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from ..data.collator import DataCollatorForUnlearning
from ..data.digests import set_digest
from ..data.prepare import RowOptions
from ..data.tokenized_row import TokenizedRow
from ..data.turns import AnswerEnds
from ..model.fingerprints import hash_parts, hash_tokenizer, model_identity
from ..model.score_rows import RowScorer, preserve_rng_state
from ..model.suppressed_forward import suppression_identity
from ..results.evaluation_result import EvaluationResult
from .answer_length import with_length
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
from .decoding import Decoding
from .evidence import Evidence, ScoredRows
from .harness.suite import LMEvalSuite
from .main_process import from_main_process
from .one_pass import OnePass, continued, greedy_beginnings
from .partial import PartialResults
from .stop_rule import StopRule
from .suite import Suite, SuiteOutput
from .versions import library_versions


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
    share; every metric is derived from that. What several answers to a prompt have in common is read once, and a
    greedy answer is generated from where it leaves the expected ones, whose scores have told it so far. Batch size,
    row order and number of ranks change no score beyond rounding (which in 16 bits may turn the odd greedy answer).
    The training mode and all random states are restored.

    Args:
        model: a causal language model on the accelerator's device; under ZeRO-3 and FSDP2 the trainer's, in or after
            training.
        tokenizer: of the model, with a padding and an end-of-text token.
        suite: what to measure, as harmful(...), tofu(...), muse(...), wmdp(...), custom(...) and lm_eval(...) make it.
        batch_size: rows of a batch that is scored; more of rows that have no more than half the longest's tokens.
        generation_batch_size: prompts of a batch that is answered, or more short ones; `batch_size` if None.
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
    suite, longest = with_length(suite, tokenizer)
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
    suite, longest = with_length(suite, tokenizer)
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

    @property
    def options(self) -> RowOptions:
        """How the suite's rows become tokens."""
        return self.suite.row_options(self.tokenizer)

    @property
    def option_tokens(self) -> Sequence[int]:
        """Tokens whose log p is taken at every answer token too."""
        return () if self.suite.option_tokens is None else self.suite.option_tokens(self.tokenizer)

    def stop_rule(self, sets: Mapping[str, Sequence[TokenizedRow]]) -> StopRule:
        """What ends the answers of the suite's rows, tokenised under the same names."""
        ends = [self.options.answer_ends(rows, sets[name]) for name, rows in self.suite.sets.items()]
        return StopRule.of(self.model, self.tokenizer, reduce(or_, ends, AnswerEnds()))

    def rows(self) -> tuple[dict[str, list[TokenizedRow]], dict[str, dict[str, Any]]]:
        """The tokenised sets, and of each its count and hash; checked."""
        suite, options = self.suite, self.options
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
        stop = self.stop_rule(sets)
        identity = "" if folder is None else self._fingerprint(tokenizer, stop)
        partial = PartialResults(folder, identity, self.accelerator)
        scorer = RowScorer(DataCollatorForUnlearning(self.tokenizer.pad_token_id), self.accelerator, batch_size)
        one_pass = OnePass(scorer, stop, partial)
        evidence, scored = self._evidence(one_pass, sets, generation_batch_size)
        measured: SuiteOutput = from_main_process(lambda: suite.measure(evidence), self.accelerator)
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
                **measured.run,
            },
            versions=library_versions(),
        )

    def _evidence(
        self, one_pass: OnePass, sets: Mapping[str, Sequence[TokenizedRow]], generation_batch_size: int
    ) -> tuple[Evidence, int]:
        """Everything that the suite's metrics need, and how many distinct rows were scored for it."""
        suite, model = self.suite, self.model
        scored, distinct = one_pass.score(model, sets, "scores", suite.sets_with_statistics, self.option_tokens)
        to_answer = {name: sets[name] for name in suite.answered}
        answers: dict[str, list[list[int]]] = {}
        if to_answer:
            # Drawn answers, and those that are changed by what has been said, are not the likeliest tokens.
            greedy = self.decoding.temperature == 0 and suppression_identity(model) is None
            lengths = suite.answer_lengths
            # Suites with several lengths of answers generate every prompt: a killed one goes on length by length.
            begun = greedy_beginnings(sets, scored) if greedy and not lengths else None
            answers = one_pass.answer(model, to_answer, self.decoding, generation_batch_size, lengths, begun)
        fluency: dict[str, ScoredRows] = {}
        if self.fluency_model is not None and suite.fluent:
            end = self.tokenizer.eos_token_id
            answered_rows = {name: continued(sets[name], answers[name], end) for name in suite.fluent}
            fluency, _ = one_pass.score(self.fluency_model, answered_rows, "fluency")
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
            tokenizer=self.tokenizer,
        )
        return evidence, distinct

    def _fingerprint(self, tokenizer: str, stop: StopRule) -> str:
        """What findings depend on beside the rows: which models, read how."""
        fluent = self.fluency_model
        parts = {
            "model": model_identity(self.model, self.accelerator),
            "fluency_model": None if fluent is None else model_identity(fluent, self.accelerator),
            "tokenizer": tokenizer,
            "statistics": list(self.suite.sets_with_statistics),
            "options": list(self.option_tokens),
            "decoding": repr(self.decoding),
            "ends": repr(stop.ends),
            "trained": [name for name, weight in self.model.named_parameters() if weight.requires_grad],
        }
        return hash_parts(parts)


def _token_rows(rows: Any, options: RowOptions, model: Any) -> list[TokenizedRow]:
    # As plain rows: `datasets` would show a bar for each of many small sets, and keep their tokens in its cache.
    tokenized = options.tokenize(rows.to_list() if isinstance(rows, datasets.Dataset) else rows, "eval")
    require_room(tokenized, model)
    return [dict(row) for row in tokenized]


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
    metrics, counts = from_main_process(
        lambda: suite.run(model, tokenizer, batch_size=batch_size, seed=seed), accelerator
    )
    return EvaluationResult(
        suite="lm_eval",
        metrics=metrics,
        settings=suite.settings(tokenizer),
        tokenizer=hash_tokenizer(tokenizer),
        seed=seed,
        processes=accelerator.num_processes,
        cost={"seconds": time.perf_counter() - started, **counts},
        versions=library_versions("lm_eval"),
    )
