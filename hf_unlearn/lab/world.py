"""The contents of a world of the lab: sets of rows, what each model is trained on, which rates it must reach."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = dict[str, str]  # `prompt` and `completion`; in a text one follows the other, and the completion brings the space


@dataclass(frozen=True)
class Recipe:
    """How a lab's two models are made. Every value is part of the cache's key."""

    revision: int = 1  # to be raised with any change to the code of this package that changes what is trained
    vocabulary_size: int = 1024  # at most; a short corpus has fewer merges
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    max_length: int = 128
    initial_standard_deviation: float = 0.08  # of the weights; at OPT's 0.02 so small a model takes twice the steps
    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 8e-3
    warmup_share: float = 0.1
    threads: int = 1  # fixed, since the order of a sum over threads changes its last bits


class Questions(NamedTuple):
    """Rows whose prompts a model answers greedily, and what share of the answers is counted.

    Attributes:
        rate: a name of `checks.RATES`.
        rows: `prompt` as the model reads it, `completion` as the answer is compared with it.
    """

    rate: str
    rows: list[Row]


@dataclass(frozen=True)
class World:
    """Everything a lab is made from, drawn from one seed.

    Attributes:
        sets: what `Lab.datasets` holds, by name and in the order in which a table shows them.
        texts: sets as the text that models read: trained on, measured for their NLL, and all of them seen by the
            tokenizer. Otherwise names of holdout alone would fall into more tokens than those of forget.
        questions: of the sets whose answers are counted.
        seen: by the name of a model, "model" and "oracle", the sets of `texts` that it is trained on.
        required: (name in `Lab.checks`, lowest, highest value).
        recipe: how both models are made.
        max_new_tokens: of an answer; more than the longest one has.
        template: what makes text of the rows of `sets`, or None where they are text already.
        files: text files of the lab's folder, by relative path.
        checkpoint: whether both models go on from one that was trained on what the oracle sees.
    """

    sets: dict[str, list[dict[str, Any]]]
    texts: dict[str, list[Row]]
    questions: dict[str, Questions]
    seen: dict[str, tuple[str, ...]]
    required: tuple[tuple[str, float, float], ...]
    recipe: Recipe
    max_new_tokens: int
    template: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    checkpoint: bool = False
