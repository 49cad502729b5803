"""Scores of rows that begin alike: what they share is read once, in one line of a batch (a tree of tokens).

A model has to keep the rows of a line apart by the mask that it is given, which not all do: state-space models, those
with a window of attention in the line, kernels without masks. That is tried on the rows themselves before any is
scored so; where a trial fails, each row is read by itself, and a line of the log says so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..data.tokenized_row import TokenizedRow, prompt_ids
from ..progress import progress
from .head_query import HeadQuery, TokenReadout
from .output_head import output_head
from .prefix_tree import PrefixTree, padded_trees, trees_of
from .probe import CALL_ERRORS, probe_model, rounding_tolerance
from .score_rows import RowScorer, evaluation_mode
from .scoring import RowScores
from .sharding import is_sharded
from .suppressed_forward import suppression_identity

logger = logging.get_logger(__name__)

# What a tree has to save of its rows' tokens to be worth a mask, and how much longer than the longest row it may be:
# attention grows with its square.
_SAVING, _LENGTHS = 0.1, 2
# Logits of so many tokens, from all over the vocabulary, are compared in the trial.
_COMPARED = 64


@dataclass(frozen=True)
class TreeScorer:
    """Scores rows as a `RowScorer` does, those with a prompt in common together.

    A batch has about the tokens that `batch_size` rows have on average, and never more than that many of the longest.
    Rows are read one by one where nothing is saved, the model is split over ranks or suppressed, or its trial fails.

    Attributes:
        rows: scores rows one by one.
    """

    rows: RowScorer

    def batches(
        self,
        model: nn.Module,
        rows: Sequence[TokenizedRow],
        wanted: Iterable[int],
        description: str,
        readouts: Sequence[TokenReadout] = (),
    ) -> Iterator[tuple[list[int], RowScores]]:
        """This rank's share of the wanted rows, batch by batch; the arguments are those of `RowScorer.batches`."""
        wanted = list(wanted)
        trees = self._trees(model, rows, wanted)
        if not trees:
            yield from self.rows.batches(model, rows, wanted, description, readouts)
            return
        accelerator = self.rows.accelerator
        budget = self.rows.batch_size * sum(len(rows[i]["input_ids"]) for i in wanted) // len(wanted)
        mine = trees[accelerator.process_index :: accelerator.num_processes]
        for batch in progress(_batches(mine, budget), description, shown=accelerator.is_local_main_process):
            lines = [tree for _, tree in batch]
            yield [i for places, _ in batch for i in places], self._score(model, lines, readouts)

    def _trees(
        self, model: nn.Module, rows: Sequence[TokenizedRow], wanted: Sequence[int]
    ) -> list[tuple[list[int], PrefixTree]]:
        """The wanted rows as trees, with their places, the largest first; none where rows are read one by one."""
        unwrapped = self.rows.accelerator.unwrap_model(model)
        # What suppresses answers reads the text before each token, which a line of several rows has not.
        suppressed = suppression_identity(unwrapped) is not None
        if is_sharded(model) or suppressed or not _takes_masks(unwrapped):
            return []
        groups: dict[tuple[int, ...], list[int]] = {}
        for place in wanted:
            groups.setdefault(tuple(prompt_ids(rows[place])), []).append(place)
        if len(groups) == len(wanted):
            return []
        lengths = {place: len(rows[place]["input_ids"]) for place in wanted}
        longest = min(_LENGTHS, self.rows.batch_size) * max(lengths.values())
        parts = trees_of(rows, groups.values(), longest, _SAVING)
        trees = [(part, PrefixTree.of([rows[i] for i in part])) for part in parts]
        trees.sort(key=lambda known: -len(known[1]))
        if sum(len(tree) for _, tree in trees) > (1 - _SAVING) * sum(lengths.values()):
            return []
        longest_row = max(wanted, key=lambda place: lengths[place])
        tried = {0, next(n for n, (places, _) in enumerate(trees) if longest_row in places)}
        if all(self._agrees(model, [rows[i] for i in trees[n][0]], trees[n][1]) for n in sorted(tried)):
            return trees
        logger.warning(
            f"{type(unwrapped).__name__} does not keep rows of one line apart by their mask: answers to one prompt "
            "are read one by one. Their scores are the same, and take longer."
        )
        return []

    def _agrees(self, model: nn.Module, rows: Sequence[TokenizedRow], tree: PrefixTree) -> bool:
        """Whether rows have in a tree the logits that they have one by one, but for rounding."""
        readout = TokenReadout("logits", None, _some_logits, width=_COMPARED)
        size, unwrapped = self.rows.batch_size, self.rows.accelerator.unwrap_model(model)
        parts = [list(rows[start : start + size]) for start in range(0, len(rows), size)]
        right = torch.cat([self.rows.score(model, part, [readout]).readouts["logits"] for part in parts])
        try:
            together = self._score(model, [tree], [readout]).readouts["logits"]
        except torch.OutOfMemoryError:
            raise
        except CALL_ERRORS:
            return False
        with self.rows.accelerator.autocast():
            tolerance = rounding_tolerance(unwrapped, right)
        # What the next token changes is the measure for what must not change.
        signal = right.diff(dim=0).abs().mean()
        return bool((together - right).abs().mean() <= tolerance * signal)

    def _score(self, model: nn.Module, trees: Sequence[PrefixTree], readouts: Sequence[TokenReadout]) -> RowScores:
        """One forward, as scores of all rows of the trees, row after row."""
        accelerator = self.rows.accelerator
        unwrapped = accelerator.unwrap_model(model)
        ids, depths, seen = padded_trees(trees, self.rows.collator.pad_token_id)
        columns = ids.shape[1]
        positions = [line * columns + place for line, tree in enumerate(trees) for place in tree.positions]
        targets = torch.tensor([token for tree in trees for token in tree.targets])
        starts = accumulate((len(tree.targets) for tree in trees), initial=0)
        answers = [
            [start + n for n in answer] for start, tree in zip(starts, trees, strict=False) for answer in tree.answers
        ]
        device = accelerator.device
        query = HeadQuery(
            torch.tensor(positions, device=device), targets.to(device), {None: slice(0, len(targets))}, readouts
        )
        first = probe_model(model, unwrapped, autocast=accelerator.autocast).first_position or 0
        inputs = {
            "input_ids": ids.to(device),
            "attention_mask": _as_mask(seen.to(device), unwrapped),
            "position_ids": (depths + first).to(device),
        }
        with evaluation_mode(model), accelerator.autocast():
            result, _ = output_head(unwrapped).read(model, inputs, query)
        lengths = torch.tensor([len(answer) for answer in answers], device=device)
        # The values of a token that several rows share are those of each.
        each = torch.tensor([n for answer in answers for n in answer], device=device, dtype=torch.long)
        none = torch.full_like(lengths, -1)
        values = {name: value[each] for name, value in result.readouts.items()}
        return RowScores(result.logps[each], query.targets[each], lengths, none, none, values)


def _batches(trees: Sequence[tuple[list[int], PrefixTree]], budget: int) -> list[list[tuple[list[int], PrefixTree]]]:
    """Trees, the largest first, in batches of at most so many tokens, padding included, and at least one tree."""
    batches: list[list[tuple[list[int], PrefixTree]]] = []
    for tree in trees:
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0][1]) > budget:
            batches.append([])
        batches[-1].append(tree)
    return batches


def _takes_masks(model: Any) -> bool:
    """Whether a model, not wrapped, may be told which tokens see which: by a mask, and by positions of its own."""
    known = output_head(model).takes_positions and probe_model(model, model).first_position is not None
    return known and model.config.get_text_config()._attn_implementation in ("sdpa", "eager")


def _as_mask(seen: Tensor, model: Any) -> Tensor:
    """What attention takes: booleans, or what is added to its scores."""
    if model.config.get_text_config()._attn_implementation == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)


def _some_logits(logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """Logits of 64 tokens, evenly from all of the vocabulary: [t, V] -> [t, 64]."""
    tokens = torch.linspace(0, logits.shape[-1] - 1, _COMPARED, device=logits.device).long()
    return logits[:, tokens]
