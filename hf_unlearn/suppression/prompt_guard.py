"""Prompt guard: a classifier watches what is read, and the embeddings are noise where it takes it for a forget row."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.tokenized_row import prompt_ids
from ..edits import EditData
from ..model.forward_patching import replaced_output
from ..model.output_head import output_head
from ..model.suppressed_forward import Text
from .base import Suppression, Suppressor

_PATTERNS = 1024  # of noise; a token's is that of its id modulo this


@dataclass(frozen=True, eq=False)
class GuardSuppressor(Suppressor):
    """Noise on embeddings from the token on at which a text is taken for a forget row.

    Args:
        weights: of every token in the classifier's score, [V].
        threshold: which the sum of the weights of the tokens so far has to pass.
        size: root mean square of the noise.
        seed: of the noise.
    """

    weights: Tensor
    threshold: float
    size: float
    seed: int

    name = "prompt_guard"
    holds = "The classifier's weights tell which tokens the forget prompts have, not in which order."

    @property
    def vocabulary(self) -> int:
        return len(self.weights)

    def forward(self, model: Any, own: Callable[..., Any], inputs: dict[str, Any], text: Text) -> Any:
        fired = self.fires(text)[:, -text.new :]
        embedding = model.get_input_embeddings()
        # The same noise wherever a token stands.
        patterns = self.size * noise_patterns(self.seed, embedding.weight.shape[1])
        noise = patterns.to(text.ids.device)[text.ids[:, -text.new :] % _PATTERNS]

        def disturb(embedded: Tensor) -> Tensor:
            if embedded.shape[:2] != fired.shape:  # the embedding of something else
                return embedded
            return torch.where(fired[..., None].to(embedded.device), embedded + noise.to(embedded), embedded)

        with replaced_output(embedding, disturb):
            return own(**inputs)

    def fires(self, text: Text) -> Tensor:
        """Whether a text is taken for a forget row at each of its tokens, from what has been read up to it: [B, L].

        Once it is, it is to its end. A token that comes again counts once.
        """
        return self._scores(text).cummax(1).values > self.threshold

    def highest(self, ids: Sequence[int]) -> float:
        """The highest score that a text reaches."""
        row = torch.tensor([list(ids)])
        return float(self._scores(Text(row, torch.ones_like(row), row.shape[1])).max())

    def _scores(self, text: Text) -> Tensor:
        own = self.weights.to(text.ids.device)[text.ids.clamp(max=len(self.weights) - 1)].double()
        first = torch.zeros(text.ids.shape, dtype=torch.bool)
        for row, (ids, mask) in enumerate(zip(text.ids.cpu(), text.mask.cpu(), strict=True)):
            seen = np.flatnonzero(mask.numpy())
            first[row, seen[np.unique(ids.numpy()[seen], return_index=True)[1]]] = True
        scores = (own * first.to(own.device)).cumsum(1)
        return scores.masked_fill(text.mask == 0, -np.inf)


@functools.lru_cache(maxsize=2)
def noise_patterns(seed: int, width: int) -> Tensor:
    """Vectors of the standard normal distribution, [patterns, width]."""
    return torch.randn(_PATTERNS, width, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class PromptGuard(Suppression):
    """Disturbs the embeddings of texts that a classifier takes for forget rows (after ECO).

    A logistic regression on which tokens a prompt has, forget against retain, is summed up token by token: from where
    the sum passes the threshold on, noise is added to the embedding of every token. So what is answered depends
    on the text before it alone, step by step as in one forward. The threshold is where `false_alarms` of the retain
    rows, prompt and answer, are taken for forget rows. (ECO asks a classifier once, of the whole prompt, and disturbs
    all of it; its noise is tuned to a retrained model.)

    Args:
        strength: root mean square of the noise, as a multiple of that of the embeddings; above 0.
        false_alarms: share of the retain rows, 0 to 1.
        penalty: inverse strength of the L2 penalty, above 0.

    Paper: Liu et al. 2024, https://arxiv.org/abs/2406.07933.
    """

    strength: float = 3.0
    false_alarms: float = 0.01
    penalty: float = 10.0

    name = "prompt_guard"
    formula = "e_t + s n(x_t) from where sum_i w(x_i) > c"
    paper = "Liu et al. 2024, arXiv:2406.07933"
    fitted = GuardSuppressor
    cost = "a logistic regression; nothing at a call"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("strength", "penalty")
        self.require("false_alarms", 0 <= self.false_alarms <= 1, "0 to 1")

    def build(self, model: PreTrainedModel, data: EditData) -> GuardSuppressor:
        forget, retain = ([prompt_ids(row) for row in rows] for rows in (data.forget, data.retain))
        weights = token_weights(forget, retain, output_head(model).vocabulary, self.penalty)
        embeddings: Tensor = model.get_input_embeddings().weight.detach()
        size = self.strength * float(embeddings.float().square().mean().sqrt())
        guard = GuardSuppressor(weights, np.inf, size, data.seed)
        highest = np.array([guard.highest(list(row["input_ids"])) for row in data.retain])
        threshold = float(np.quantile(highest, 1 - self.false_alarms, method="higher"))
        return GuardSuppressor(weights, threshold, size, data.seed)


def token_weights(
    forget: Sequence[Sequence[int]], retain: Sequence[Sequence[int]], vocabulary: int, penalty: float
) -> Tensor:
    """Weights of a logistic regression on which tokens prompts have, forget (1) against retain (0), [V]."""
    from sklearn.feature_extraction import DictVectorizer  # takes a second, which training has no use for
    from sklearn.linear_model import LogisticRegression

    vectorizer = DictVectorizer(sort=False)
    table = vectorizer.fit_transform([{str(token): 1.0 for token in set(ids)} for ids in [*forget, *retain]])
    labels = np.repeat([1, 0], [len(forget), len(retain)])
    fitted = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000).fit(table, labels)
    weights = torch.zeros(vocabulary)
    weights[[int(name) for name in vectorizer.feature_names_]] = torch.tensor(fitted.coef_[0]).float()
    return weights
