"""The way of a loss's values: read by the head under the name of the term's component, and found there by the term."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fixtures.scores import forget, query_of, random_logits, random_targets
from hf_unlearn.data import Role
from hf_unlearn.losses import DistributionLoss, MaxEntropy
from hf_unlearn.model.chunked_logits import read_positions
from hf_unlearn.model.logit_provider import DenseLogits
from hf_unlearn.training.objective import Objective

T, V = 5, 7


@dataclass(frozen=True)
class Confidence(DistributionLoss):
    """A loss of another package, of the other side, that has the name and the rows of one of ours."""

    name = "max_entropy"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t max_v p_t(v)"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return logits.softmax(-1).amax(-1)


def test_terms_of_one_name_on_both_sides_are_given_their_own_values():
    objective = Objective([MaxEntropy(weight=2.0)], [Confidence()])
    logits, targets = random_logits(T, V), random_targets(T, V)
    query = query_of(targets, *objective.readouts({}))
    assert [readout.name for readout in query.readouts] == ["forget/max_entropy", "retain/max_entropy"]
    logps, readouts = query.split(read_positions(logits, query, DenseLogits(), (), V))
    scores = forget(logps, token_ids=targets)
    scores = replace(scores, forget=replace(scores.forget, readouts=readouts))
    counts = torch.zeros(len(Role), 2, dtype=torch.long)
    counts[Role.FORGET] = torch.tensor([T, 1])
    total, components = objective(scores, counts)
    p = logits.softmax(-1)
    entropy, confidence = -p.log().mean() - torch.tensor(float(V)).log(), p.amax(-1).mean()
    torch.testing.assert_close(components["forget/max_entropy"][0], entropy)
    torch.testing.assert_close(components["retain/max_entropy"][0], confidence)
    torch.testing.assert_close(total, 2 * entropy + confidence)
    assert abs(entropy - confidence) > 0.1
