"""Rows that begin alike, scored in one line: the scores of rows read one by one, whatever the model is."""

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    GPTNeoConfig,
    MambaConfig,
    RobertaConfig,
    RwkvConfig,
)
from transformers.utils import logging

from fixtures.models import VOCABULARY, tiny_model
from fixtures.tokenizer import BOS, EOS, PAD
from hf_unlearn.data import DataCollatorForUnlearning
from hf_unlearn.evaluation.one_pass import statistical_figures
from hf_unlearn.model.head_query import TokenReadout
from hf_unlearn.model.prefix_tree import PrefixTree, padded_trees, trees_of
from hf_unlearn.model.probe import probe_model
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.model.tree_scores import TreeScorer

SIZES: dict[str, Any] = dict(
    vocab_size=VOCABULARY, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, hidden_size=32, num_hidden_layers=2,
    num_attention_heads=4, initializer_range=0.15,
)  # fmt: skip
LLAMA_LIKE: dict[str, Any] = SIZES | dict(intermediate_size=48, num_key_value_heads=2, head_dim=8)
NEO: dict[str, Any] = dict(
    vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]
)
# Those that keep rows of a line apart by the mask.
TREES = {
    "llama": lambda: tiny_model(),
    "llama, eager": lambda: tiny_model(),
    "opt": lambda: tiny_model("opt"),
    "mixtral": lambda: of("mixtral", **LLAMA_LIKE, num_local_experts=4),
    "gpt2": lambda: of("gpt2", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.15),
    "gpt_neox": lambda: of("gpt_neox", **SIZES, intermediate_size=48),
    "phi3": lambda: of("phi3", **LLAMA_LIKE),
    "qwen3": lambda: of("qwen3", **LLAMA_LIKE),
    "gemma2": lambda: of("gemma2", **LLAMA_LIKE, query_pre_attn_scalar=8, sliding_window=512),
    "mistral, a wide window": lambda: of("mistral", **LLAMA_LIKE, sliding_window=64),
    "roberta": lambda: made(RobertaConfig(**SIZES, intermediate_size=48, is_decoder=True)),
    "llama in 16 bits": lambda: tiny_model().to(torch.bfloat16),
}
# Those that do not: a loss of the router that reads the mask, a state, positions in the line (ALiBi, a window in the
# line), a window that rows reach beyond.
ROWS = {
    "mixtral with a router loss": lambda: tiny_model("mixtral"),
    "mamba": lambda: made(MambaConfig(**TOKENS, hidden_size=32, num_hidden_layers=2, state_size=8, time_step_rank=4)),
    "rwkv": lambda: made(
        RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2)
    ),
    "bloom": lambda: made(BloomConfig(**TOKENS, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.15)),
    "gpt_neo, a narrow window": lambda: made(GPTNeoConfig(**NEO, window_size=4, initializer_range=0.15)),
    "mistral, a narrow window": lambda: of("mistral", **LLAMA_LIKE, sliding_window=8),
}
TOKENS = {name: SIZES[name] for name in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}


def made(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def of(kind: str, **sizes: Any) -> Any:
    return made(AutoConfig.for_model(kind, **sizes))


def row(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    return {"input_ids": [*prompt, *answer], "labels": [-100] * len(prompt) + answer, "answer_start": len(prompt)}


# Four questions with three answers, of which two begin alike, and one question with one.
ASKED = [[BOS, *range(20 + i, 30 + 2 * i)] for i in range(4)]
ROWS_OF_SETS = [
    row(prompt, answer)
    for i, prompt in enumerate(ASKED)
    for answer in ([50, 51, 52, EOS], [50, 51, 60 + i, 61, EOS], [70, 71 + i, EOS])
] + [row([BOS, 90, 91], [92, 93, EOS])]


MOMENTS = TokenReadout("figures", None, statistical_figures, width=3)


def scored(scorer: Any, model: Any) -> list[np.ndarray]:
    """Log-probs, whether right, and moments of each row's tokens, in the order of the rows."""
    found: dict[int, np.ndarray] = {}
    for places, scores in scorer.batches(model, ROWS_OF_SETS, range(len(ROWS_OF_SETS)), "", [MOMENTS]):
        values = torch.cat([scores.logps[:, None], scores.readouts["figures"]], dim=1).split(scores.lengths.tolist())
        found |= zip(places, [value.numpy() for value in values], strict=True)
        assert scores.token_ids.tolist() == [t for i in places for t in ROWS_OF_SETS[i]["labels"] if t != -100]
    return [found[i] for i in range(len(ROWS_OF_SETS))]


def scorer_of(batch_size: int = 4) -> RowScorer:
    return RowScorer(DataCollatorForUnlearning(PAD), Accelerator(cpu=True), batch_size)


@pytest.mark.parametrize("name", [*TREES, *ROWS])
def test_scores_are_those_of_rows_read_one_by_one(name, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(logging.get_logger("hf_unlearn.model.tree_scores"), "warning", warned.append)
    model = (TREES | ROWS)[name]().eval()
    if name.endswith("eager"):
        model.set_attn_implementation("eager")
    trees = TreeScorer(scorer_of())
    tokens = sum(len(tree) for _, tree in trees._trees(model, ROWS_OF_SETS, range(len(ROWS_OF_SETS))))
    # Four questions of 11 to 14 tokens, of which three rows each make one: about half of the rows' tokens.
    assert 0.3 < tokens / sum(len(row["input_ids"]) for row in ROWS_OF_SETS) < 0.7 if name in TREES else not tokens
    coarse = model.dtype is torch.bfloat16
    for one, other in zip(scored(trees, model), scored(scorer_of(), model), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=0.3 if coarse else 2e-5)
    assert np.concatenate(scored(trees, model))[:, 0].std() > 0.1
    if name in ROWS and warned:
        assert "does not keep rows of one line apart" in warned[0]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_no_batch_has_more_tokens_than_its_rows_might(batch_size):
    model, sizes = tiny_model().eval(), []
    expected = scored(scorer_of(), model)
    probe_model(model, model)  # once for a model, with rows of its own
    model.model.register_forward_hook(lambda m, i, output: sizes.append(output[0].shape[0] * output[0].shape[1]))
    for one, other in zip(scored(TreeScorer(scorer_of(batch_size)), model), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
    assert max(sizes) <= batch_size * max(len(row["input_ids"]) for row in ROWS_OF_SETS)


def test_a_tree_has_each_beginning_once():
    rows = [row([1, 2], [3, 4]), row([1, 2], [5]), row([1, 2], [3])]
    tree = PrefixTree.of(rows)
    assert (tree.ids, tree.depths) == ([1, 2, 3, 4, 5], [0, 1, 2, 3, 2])
    assert (tree.positions, tree.targets, tree.answers) == ([1, 2, 1], [3, 4, 5], [[0, 1], [2], [0]])
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert tree.sees().astype(int).tolist() == expected
    ids, depths, seen = padded_trees([tree, PrefixTree.of([row([7], [8])])], pad=0)
    assert ids[1].tolist() == [7, 8, 0, 0, 0] and depths[1].tolist() == [0, 1, 0, 0, 0]
    assert seen.shape == (2, 1, 5, 5) and seen[1, 0].int().tolist()[1:3] == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


def test_trees_are_no_longer_than_asked_and_of_rows_that_share():
    rows = [row([1, 2, 3], [4, 5]), row([1, 2, 3], [9, 9, 9]), row([1, 2, 3], [4, 6]), row([8, 8, 8], [4])]
    assert trees_of(rows, [[0, 1, 2, 3]], 6, 0.1) == [[0, 2], [1], [3]]
    assert trees_of(rows, [[0, 1, 2, 3]], 9, 0.1) == [[0, 2, 1], [3]]


def test_rows_of_unlike_prompts_are_read_one_by_one():
    assert TreeScorer(scorer_of())._trees(tiny_model().eval(), ROWS_OF_SETS[::3], range(4)) == []
