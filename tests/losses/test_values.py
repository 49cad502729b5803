"""Every later loss at literal scores, against numbers worked out by hand. No model, and no oracle either.

Two answer tokens stand at the distributions

    pi      1/2 1/4 1/8 1/8      y = 0       pi_ref  1/4 1/4 1/4 1/4
            1/16 1/16 1/8 3/4    y = 2               1/2 1/4 1/8 1/8

written as logits with a constant of their own, which no softmax sees. -log pi is 1 2 3 3 and 4 4 3 2 in units of ln 2,
the last of them less ln 3.
"""

from math import log, tanh

import pytest
import torch

from fixtures.one_step import TESTED_ALONE
from fixtures.scores import double, forget, retain, rows, values_of
from hf_unlearn import losses
from hf_unlearn.model.scoring import Scores

LN2, LN3 = log(2), log(3)

PI = double([[1 / 2, 1 / 4, 1 / 8, 1 / 8], [1 / 16, 1 / 16, 1 / 8, 3 / 4]])
PI_REF = double([[1 / 4, 1 / 4, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 8, 1 / 8]])
TARGETS = [0, 2]
LOGITS, REFERENCE_LOGITS = PI.log() + double([[3.0], [-1.0]]), PI_REF.log() + double([[-2.0], [5.0]])
LOGPS = double([1 / 2, 1 / 8]).log()

ASCENT = forget(LOGPS)
DISTRIBUTIONS = forget(LOGPS, token_ids=TARGETS, logits=LOGITS, reference=rows(LOGPS, logits=REFERENCE_LOGITS))
ALTERNATES = Scores(
    forget=rows(double([1 / 2, 1 / 8, 1 / 4]).log(), lengths=[2, 1]),
    alternate=rows(double([3 / 4, 1 / 4, 1 / 2]).log(), lengths=[1, 2]),
)
KEPT = retain(logits=LOGITS, reference=rows(LOGPS, logits=REFERENCE_LOGITS))
HIDDEN = {1: double([[1, 2], [3, 4]]), 2: double([[0, 0], [0, 0]])}
HIDDEN_REFERENCE = rows(hidden={1: double([[1, 0], [0, 0]])})
PREFERRED = Scores(
    retain=rows(-LN2 * double([1, 3, 1]), lengths=[2, 1]),
    retain_alternate=rows(-LN2 * double([2, 1, 3]), lengths=[1, 2]),
)

BY_HAND = {
    # 1/4 (1 + 2 + 3 + 3) ln 2 - ln 4, and 1/4 (13 ln 2 - ln 3) - ln 4.
    "max_entropy": (losses.MaxEntropy(), DISTRIBUTIONS, [LN2 / 4, (5 * LN2 - LN3) / 4]),
    # (1/2)^2 ln(1/2) and (1/8)^2 ln(1/8).
    "wga": (losses.WGA(beta=2), ASCENT, [-LN2 / 4, -3 / 64 * LN2]),
    # The same times 1/2 and 7/8.
    "satimp": (losses.SatImp(beta1=2, beta2=1), ASCENT, [-LN2 / 8, -21 / 512 * LN2]),
    # Halving the odds of y leaves the targets (1 2 2 2)/7 and (8 4 1 2)/15, against -log pi as above.
    "undial": (losses.UNDIAL(beta=LN2), DISTRIBUTIONS, [17 / 7 * LN2, (55 * LN2 - 2 * LN3) / 15]),
    # Without y: (2 1 1)/4 against 2 3 3, and (1 1 12)/14 against 4 4 (2 - ln 3).
    "ceu": (losses.CEU(), DISTRIBUTIONS, [5 / 2 * LN2, (16 * LN2 - 6 * LN3) / 7]),
    # |h - c u|^2 / 2 at h = 0, for any unit vector u.
    "rmu": (losses.RMU(c=4, layer=2, seed=3), forget(hidden=HIDDEN), [8, 8]),
    # 1 + 1/2 - 1/4 and 1 + 1/8 - 3/4.
    "ihl": (losses.IHL(), DISTRIBUTIONS, [5 / 4, 3 / 8]),
    # ln 2 + (p ln p - (1 + p) ln(1 + p)) / 2 at p = 1/2 and 1/8: 3/2 and 9/8 make the ln 3.
    "jsd": (losses.JSD(), Scores(alternate=rows(LOGPS)), [(6 * LN2 - 3 * LN3) / 4, (20 * LN2 - 9 * LN3) / 8]),
    # P = 5/16 against 3/4, and 1/4 against 3/8.
    "flat": (losses.FLAT(), ALTERNATES, [(tanh(5 / 16) - tanh(3 / 4)) / 2, (tanh(1 / 4) - tanh(3 / 8)) / 2]),
    # -ln 2 + 9/4 ln 2, and ln 3 - 2 ln 2 + (13 ln 2 - ln 3)/4.
    "logit_margin": (losses.LogitMargin(), DISTRIBUTIONS, [(5 / 4 * LN2) ** 2, (3 / 4 * LN3 + 5 / 4 * LN2) ** 2]),
    # m = 3/8 1/4 3/16 3/16: (1/2 ln(4/3) + 1/4 ln(2/3))/2 + (1/4 ln(2/3) + 1/2 ln(4/3))/2.
    # m = 9/32 5/32 1/8 7/16: ln(2/9)/16 + ln(2/5)/16 + 3/4 ln(12/7), and ln(16/9)/2 + ln(8/5)/4 + ln(2/7)/8.
    "retain jsd": (
        losses.RetainJSD(),
        KEPT,
        [
            5 / 4 * LN2 - 3 / 4 * LN3,
            ((log(2 / 9) + log(2 / 5)) / 16 + 3 / 4 * log(12 / 7) + log(16 / 9) / 2 + log(8 / 5) / 4 + log(2 / 7) / 8)
            / 2,
        ],
    ),
    # (0 + 4)/2 and (9 + 16)/2.
    "hidden": (losses.RetainHidden(layer=1), retain(hidden=HIDDEN, reference=HIDDEN_REFERENCE), [2, 12.5]),
    # nll_alt - nll = (2 - 2) ln 2 and (2 - 1) ln 2: ln(1 + 1)/2 and ln(1 + 1/4)/2.
    "answer_preservation": (losses.AnswerPreservation(beta=2), PREFERRED, [LN2 / 2, log(5 / 4) / 2]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_value_by_hand(name):
    loss, scores, expected = BY_HAND[name]
    values = values_of(loss, scores)
    assert values.dtype == torch.float64 and float(values.abs().min()) > 0.01
    torch.testing.assert_close(values, double(expected), rtol=1e-6 if name == "rmu" else 1e-12, atol=0)


def test_every_loss_that_is_new_has_a_number():
    older = {"grad_ascent", "npo", "simnpo", "dpo", "idk", "random_mismatch", "nll", "kl"}
    known = {name.removeprefix("retain ") for name in BY_HAND}
    assert known == (losses.FORGET_LOSSES.keys() | losses.RETAIN_LOSSES.keys()) - older - TESTED_ALONE


@pytest.mark.parametrize("name", BY_HAND)
def test_a_loss_has_a_value_for_each_of_its_items(name):
    loss, scores, _ = BY_HAND[name]
    own = scores.rows(loss.on)
    assert values_of(loss, scores).shape == ((len(own.token_ids) if loss.unit == "token" else len(own.lengths)),)
