"""`Evidence`: scores and answers of one pass over a suite's rows, set by set, from which every metric is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..results.evaluation_result import EvaluationResult

# The figures of an answer token, in this order; the last two only where a suite asks for vocabulary statistics.
TOKEN_FIGURES = ("logp", "right", "mean", "deviation")


@dataclass(frozen=True)
class ScoredRows:
    """Figures of the answer tokens of N rows, in the set's order.

    Attributes:
        tokens: for each row an array [figures, n], fp32 (fp64 for a model in fp64): log p(y_t), nats; 1 where y_t is
            the most likely token; mean and standard deviation of log p(v), v ~ p; log p of the suite's option tokens.
            The last two where the suite asks for them.
    """

    tokens: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def logps(self) -> list[np.ndarray]:
        """log p(y_t) of each row's tokens, nats."""
        return [row[0] for row in self.tokens]

    @property
    def right(self) -> list[np.ndarray]:
        """Whether each answer token is the most likely one, bool."""
        return [row[1] > 0 for row in self.tokens]

    @property
    def means(self) -> list[np.ndarray]:
        """Mean of log p(v) at each token, nats."""
        return [row[2] for row in self.tokens]

    @property
    def deviations(self) -> list[np.ndarray]:
        """Standard deviation of log p(v) at each token, nats."""
        return [row[3] for row in self.tokens]

    def option_logps(self, count: int) -> np.ndarray:
        """log p of the suite's `count` option tokens at each row's first answer token, [N, count], nats."""
        return np.stack([row[-count:, 0] for row in self.tokens]).astype(np.float64)

    @property
    def lengths(self) -> np.ndarray:
        """Answer tokens of each row, [N]."""
        return np.array([row.shape[1] for row in self.tokens])

    @property
    def nll_sum(self) -> np.ndarray:
        """NLL of each row, [N], nats."""
        return np.array([-row[0].sum(dtype=np.float64) for row in self.tokens])

    @property
    def nll_per_token(self) -> np.ndarray:
        """NLL per token of each row, [N], nats."""
        return self.nll_sum / self.lengths

    def grouped(self, sizes: Sequence[int]) -> list[np.ndarray]:
        """NLL per token of rows that stand group after group (wrong answers to a question), an array a group."""
        return np.split(self.nll_per_token, np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class AnsweredRows:
    """What the model answered to the prompts of N rows, in the set's order.

    Attributes:
        answers: as text, special tokens left out, without the prompt.
        expected: the rows' own answers.
        fluency: figures of the answers' own tokens under the fluency model; None where there is none.
        ids: the answers as token ids, without what ended them.
    """

    answers: Sequence[str]
    expected: Sequence[str]
    fluency: ScoredRows | None = None
    ids: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class Evidence:
    """All that a suite's metrics are derived from.

    Attributes:
        scored: sets whose answers were scored.
        answered: sets whose prompts were answered.
        texts: the expected answers of scored sets, as text.
        gradient_norms: L2 norm of the gradient of each row's NLL per token, for sets that the suite names.
        vocabulary: V, the size of the model's vocabulary.
        max_new_tokens: the longest answer that the model could give.
        before: the suite's result on the model before unlearning, if it was given one.
        oracle: its result on the model retrained without the forget rows, if it was given one.
        tokenizer: of the model; None where answers were made up.
    """

    scored: Mapping[str, ScoredRows]
    answered: Mapping[str, AnsweredRows]
    texts: Mapping[str, Sequence[str]]
    gradient_norms: Mapping[str, np.ndarray] = field(default_factory=dict)
    vocabulary: int = 0
    max_new_tokens: float = float("inf")
    before: "EvaluationResult | None" = None
    oracle: "EvaluationResult | None" = None
    tokenizer: "PreTrainedTokenizerBase | None" = None
