"""The one pass over a suite's rows: each distinct row is scored once, each distinct prompt answered once."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..data.digests import prompt_digest, row_digest
from ..data.tokenized_row import IGNORED_LABEL, TokenizedRow, answer_ids, prompt_ids, trained_ids
from ..model.chunked_logits import log_prob_moments
from ..model.head_query import TokenReadout
from ..model.row_gradients import row_gradient_norms
from ..model.score_rows import RowScorer
from ..model.scoring import RowScores
from ..model.tree_scores import TreeScorer
from .decoding import Decoding
from .evidence import AnsweredRows, ScoredRows
from .generation import answer_batches
from .partial import Findings, PartialResults
from .stop_rule import StopRule

# Batch by batch: the places of items, and the finding of each.
FoundBatches: TypeAlias = Iterator[tuple[list[int], list[np.ndarray]]]


@dataclass(frozen=True)
class Distinct:
    """The distinct rows or prompts of several sets: what is in two sets is asked of the model once.

    Attributes:
        items: in the order of their first appearance.
        digests: of each, by which it is known on disk.
        places: by set, which distinct item each of its items is.
    """

    items: list[Any]
    digests: list[str]
    places: Mapping[str, list[int]]

    @classmethod
    def of(cls, sets: Mapping[str, Iterable[Any]], digest: Callable[[Any], str]) -> "Distinct":
        """The distinct items of sets: those of unlike digests."""
        known: dict[str, int] = {}
        items: list[Any] = []
        places: dict[str, list[int]] = {}
        for name, members in sets.items():
            places[name] = []
            for member in members:
                identity = digest(member)
                if identity not in known:
                    known[identity] = len(items)
                    items.append(member)
                places[name].append(known[identity])
        return cls(items, list(known), places)

    def missing(self, findings: Findings) -> list[int]:
        """The places of the items without a finding."""
        return [place for place, digest in enumerate(self.digests) if digest not in findings]

    def in_sets(self, findings: Findings) -> dict[str, list[np.ndarray]]:
        """The findings set by set, in the set's order."""
        return {name: [findings[self.digests[place]] for place in places] for name, places in self.places.items()}


# What is done for each kind of finding, as bars and lines say it.
_DONE = {"scores": "likelihoods", "answers": "answers to prompts", "fluency": "fluency of the answers"}


@dataclass
class OnePass:
    """How the rows of a suite are gone through.

    Attributes:
        scorer: batches and ranks.
        stop: what ends an answer.
        partial: the findings of earlier starts.
        forwards: batches that this rank has scored, counted as they come.
    """

    scorer: RowScorer
    stop: StopRule
    partial: PartialResults
    forwards: int = 0

    def score(
        self,
        model: Any,
        sets: Mapping[str, Sequence[TokenizedRow]],
        kind: str,
        statistics: Collection[str] = (),
        options: Sequence[int] = (),
    ) -> tuple[dict[str, ScoredRows], int]:
        """Figures of the answer tokens of every row, and how many distinct rows were scored for them.

        Args:
            model: whole on every rank.
            sets: tokenised rows by set.
            kind: what the findings are called on disk.
            statistics: sets of which also mean and deviation of log p over the vocabulary are taken, which cost more
                than all else that is read of a distribution.
            options: tokens whose log p is taken at every answer token too, the last of its figures.
        """
        rows = Distinct.of(sets, row_digest)
        with_moments = {place for name in statistics for place in rows.places[name]}
        scorer = TreeScorer(self.scorer)

        def batches(wanted: list[int]) -> FoundBatches:
            for moments in (True, False):
                part = [place for place in wanted if (place in with_moments) == moments]
                readouts = [_readout(moments, options)]
                for indices, scores in scorer.batches(model, rows.items, part, _DONE[kind], readouts):
                    figures = token_figures(scores).cpu().numpy()
                    self.forwards += 1
                    yield indices, np.split(figures, np.cumsum(scores.lengths.tolist())[:-1], axis=1)

        figures_by_set = self._complete(kind, rows, batches)
        return {name: ScoredRows(figures) for name, figures in figures_by_set.items()}, len(rows.items)

    def answer(
        self,
        model: Any,
        sets: Mapping[str, Sequence[TokenizedRow]],
        decoding: Decoding,
        batch_size: int,
        lengths: Mapping[str, int],
        begun: Mapping[tuple[int, ...], Sequence[int]] | None = None,
    ) -> dict[str, list[list[int]]]:
        """Token ids of the answers to every row's prompt, with the token that ended each, if one did.

        Args:
            model: whole on every rank.
            sets: tokenised rows by set.
            decoding: how answers are generated.
            batch_size: prompts of a batch.
            lengths: longest answer of sets that have one of their own.
            begun: by prompt, what its answer is known to begin with.
        """
        groups: dict[int, dict[str, Sequence[TokenizedRow]]] = {}
        for name, rows in sets.items():
            groups.setdefault(lengths.get(name, decoding.max_new_tokens), {})[name] = rows
        answers: dict[str, list[list[int]]] = {}
        for longest, group in groups.items():
            kind = "answers" if longest == decoding.max_new_tokens else f"answers of {longest} tokens"
            own = replace(decoding, max_new_tokens=longest)
            answers |= self._answer(model, group, own, batch_size, kind, begun or {})
        return answers

    def _answer(
        self,
        model: Any,
        sets: Mapping[str, Sequence[TokenizedRow]],
        decoding: Decoding,
        batch_size: int,
        kind: str,
        begun: Mapping[tuple[int, ...], Sequence[int]],
    ) -> dict[str, list[list[int]]]:
        prompts = Distinct.of({name: [prompt_ids(row) for row in rows] for name, rows in sets.items()}, prompt_digest)
        accelerator = self.scorer.accelerator
        known = {place: begun.get(tuple(ids), ()) for place, ids in enumerate(prompts.items)}

        def batches(wanted: list[int]) -> FoundBatches:
            for indices, answers in answer_batches(
                model, self.stop, prompts.items, wanted, accelerator, decoding, batch_size, _DONE["answers"], known
            ):
                yield indices, [np.array(ids, dtype=np.int64) for ids in answers]

        answers_by_set = self._complete(kind, prompts, batches)
        return {name: [ids.tolist() for ids in answers] for name, answers in answers_by_set.items()}

    def gradient_norms(self, model: Any, sets: Mapping[str, Sequence[TokenizedRow]]) -> dict[str, np.ndarray]:
        """L2 norm of the gradient of every row's NLL per token, by set."""
        rows = Distinct.of(sets, row_digest)
        accelerator, size = self.scorer.accelerator, self.scorer.batch_size

        def batches(wanted: list[int]) -> FoundBatches:
            mine = wanted[accelerator.process_index :: accelerator.num_processes]
            for start in range(0, len(mine), size):
                part = mine[start : start + size]
                yield part, list(map(np.array, row_gradient_norms(model, [rows.items[i] for i in part])))

        norms_by_set = self._complete("gradient norms", rows, batches)
        return {name: np.array(norms) for name, norms in norms_by_set.items()}

    def _complete(
        self, kind: str, items: Distinct, batches: Callable[[list[int]], FoundBatches]
    ) -> dict[str, list[np.ndarray]]:
        """The findings of earlier starts, of this rank's batches and of the other ranks, by set.

        Args:
            kind: what they are called on disk.
            items: what is asked for; those of an earlier start are not asked again.
            batches: this rank's share of the items at some places, batch by batch; each is kept on disk at once.
        """
        findings = dict(self.partial.of(kind))
        own: Findings = {}
        for places, values in batches(items.missing(findings)):
            batch = {items.digests[place]: value for place, value in zip(places, values, strict=True)}
            self.partial.add(kind, batch)
            own |= batch
        for of_rank in gather_object([own]):
            findings |= of_rank
        return items.in_sets(findings)

    def texts(self, rows: Sequence[TokenizedRow]) -> list[str]:
        """The rows' own answers as text, without what ends them: it is no more part of those that a model gives."""
        return [self._text(self.stop.strip(trained_ids(row["labels"]))) for row in rows]

    def as_evidence(
        self, rows: Sequence[TokenizedRow], answers: Sequence[list[int]], fluency: ScoredRows | None
    ) -> AnsweredRows:
        """A set's answers as text, beside those that its rows have."""
        own = [self.stop.strip(ids) for ids in answers]
        return AnsweredRows([self._text(ids) for ids in own], self.texts(rows), fluency, own)

    def _text(self, ids: Sequence[int]) -> str:
        return self.stop.tokenizer.decode(ids, skip_special_tokens=True).strip()


def continued(rows: Sequence[TokenizedRow], answers: Sequence[list[int]], end: int) -> list[TokenizedRow]:
    """Rows whose answers are what a model said: what the fluency model is asked to score."""
    continued_rows = []
    for row, given in zip(rows, answers, strict=True):
        prompt, answer = prompt_ids(row), given or [end]  # no answer at all is a row like any other: the end at once
        labels = [*([IGNORED_LABEL] * len(prompt)), *answer]
        continued_rows.append({"input_ids": [*prompt, *answer], "labels": labels, "answer_start": len(prompt)})
    return continued_rows


def greedy_beginnings(
    sets: Mapping[str, Sequence[TokenizedRow]], scored: Mapping[str, ScoredRows]
) -> dict[tuple[int, ...], list[int]]:
    """By prompt, what its greedy answer begins with, as the scores of the prompt's rows tell it.

    As long as the tokens of a row's answer are the likeliest ones, they are what the model itself would say: a model
    that knows the answer by heart has given it when it has been scored.
    """
    known: dict[tuple[int, ...], list[int]] = {}
    for name, rows in sets.items():
        for row, right in zip(rows, scored[name].right, strict=True):
            answer = answer_ids(row)
            if len(right) != len(answer) or answer != trained_ids(row["labels"]):
                continue  # no prompt, or turns of others within the answer
            begun = answer[: len(right) if right.all() else int(right.argmin())]
            prompt = tuple(prompt_ids(row))
            if len(begun) > len(known.get(prompt, ())):
                known[prompt] = begun
    return known


def right_tokens(logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """Whether the likeliest token is the right one: [t, V], [t] -> [t], 0 or 1."""
    return (logits.argmax(-1) == token_ids).to(logits.dtype)


def statistical_figures(logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """The same, with mean and deviation of log p over the vocabulary: [t, V], [t] -> [t, 3]."""
    return torch.stack([right_tokens(logits, token_ids, reference), *log_prob_moments(logits)], dim=1)


def _readout(moments: bool, options: Sequence[int]) -> TokenReadout:
    """What is read of the distribution at an answer token."""
    function, width = (statistical_figures, 3) if moments else (right_tokens, 1)
    if options:
        function, width = partial(with_options, figures=function, options=list(options)), width + len(options)
    return TokenReadout("figures", None, function, width=width)


def with_options(
    logits: Tensor,
    token_ids: Tensor,
    reference: Tensor | None,
    *,
    figures: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    options: Sequence[int],
) -> Tensor:
    """Other figures, and log p of some tokens behind them: [t, V], [t] -> [t, width + options]."""
    own = figures(logits, token_ids, reference).reshape(len(logits), -1)
    return torch.cat([own, logits[:, list(options)] - logits.logsumexp(-1, keepdim=True)], dim=1)


def token_figures(scores: RowScores) -> Tensor:
    """Figures of T answer tokens, [2 or 4 and one an option, T]: see `evidence.TOKEN_FIGURES`."""
    values = scores.readouts["figures"]
    return torch.cat([scores.logps[None], values.reshape(len(scores.logps), -1).T])
