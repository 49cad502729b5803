"""Groups of metrics that suites share: of scored rows, of answers, and membership attacks."""

from collections.abc import Mapping, Sequence

import numpy as np

from ... import metrics
from ...errors import input_error
from ...metrics import MetricResult
from ...metrics.membership import ATTACKS
from ...results.evaluation_result import EvaluationResult
from ..evidence import AnsweredRows, Evidence, ScoredRows
from ..suite import chosen

Metrics = dict[str, MetricResult]

# Those that need nothing but one forward of the model.
CHEAP_ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")


def likelihood_metrics(name: str, rows: ScoredRows) -> Metrics:
    """How likely the rows of a set are: NLL per token, probability, exact memorisation, extraction strength."""
    # The likeliest token of NaN logits is some token: a model that has diverged would seem to have forgotten.
    unknown = np.where(np.isnan(rows.nll_per_token), np.nan, 0.0)
    return {
        f"{name}_nll": metrics.token_nll(rows.nll_sum, rows.lengths),
        f"{name}_probability": metrics.answer_probability(rows.nll_per_token),
        f"{name}_exact_memorization": metrics.mean(metrics.exact_memorizations(rows.right) + unknown),
        f"{name}_extraction_strength": metrics.mean(metrics.extraction_strengths(rows.right) + unknown),
    }


def recall_metrics(name: str, rows: AnsweredRows) -> Metrics:
    """How much of the expected answers the model's own answers have: ROUGE-1 and ROUGE-L recall, same words."""
    recalls = metrics.rouge_recalls_of(rows.answers, rows.expected, ("rouge1", "rougeL"))
    return {
        f"{name}_accuracy": metrics.accuracy(rows.answers, rows.expected),
        f"{name}_rouge1": metrics.mean(recalls["rouge1"]),
        f"{name}_rouge": metrics.mean(recalls["rougeL"]),
    }


def gibberish(rows: AnsweredRows, vocabulary: int) -> list[bool]:
    """Which answers are gibberish: the fluency model finds them no likelier than words drawn at random (nll >= log V).

    Without a fluency model none is known to be.
    """
    if rows.fluency is None:
        return [False] * len(rows.answers)
    return [not likelier for likelier in rows.fluency.nll_per_token < np.log(vocabulary)]  # NaN is no sense either


def wording_metrics(rows: AnsweredRows, vocabulary: int) -> Metrics:
    """Whether answers are still language: empty, repetitive, broken, refusals, distinct words, perplexity."""
    answers = rows.answers
    measured = {
        "empty_rate": metrics.empty_rate(answers),
        "repetition_rate": metrics.repetition_rate(answers),
        "broken_rate": metrics.broken_rate(answers, gibberish(rows, vocabulary)),
        "refusal_rate": metrics.refusal_rate(answers),
        "distinct_1": metrics.distinct_n(answers, 1),
        "distinct_2": metrics.distinct_n(answers, 2),
    }
    if rows.fluency is not None:
        measured["answer_perplexity"] = metrics.perplexity(rows.fluency.nll_sum, rows.fluency.lengths)
    return measured


def wording_warnings(rows: AnsweredRows, vocabulary: int) -> list[str]:
    """What hides behind a low score of the answers: text that is broken, or that nobody looked at."""
    broken = metrics.broken_rate(rows.answers, gibberish(rows, vocabulary))
    warnings = []
    if broken.value >= 0.2:
        warnings.append(
            f"{broken.value:.0%} of the answers to forget prompts are empty, repetitive or gibberish to the fluency "
            "model: low scores of such answers are no sign that anything was forgotten."
        )
    if rows.fluency is None:
        warnings.append(
            "No fluency model was given, so gibberish that is neither empty nor repetitive is not noticed: pass "
            "fluency_model, the model before unlearning."
        )
    return warnings


def length_warnings(evidence: Evidence) -> list[str]:
    """Sets whose expected answers do not fit into the length that answers may have."""
    warnings = []
    for name in evidence.answered:
        # The end of text counts among the tokens of a row, not among those of an answer.
        longer = float(np.mean(evidence.scored[name].lengths - 1 > evidence.max_new_tokens))
        if longer >= 0.05:
            warnings.append(
                f"{longer:.0%} of the expected {name} answers are longer than max_new_tokens="
                f"{evidence.max_new_tokens}: the model could not give them whole, so that accuracy, ROUGE and overlap "
                "with them come out too low."
            )
    return warnings


def membership_scores(name: str, evidence: Evidence, attacks: Sequence[str]) -> dict[str, np.ndarray]:
    """By attack, how much like a training row each row of a set looks; NaN nowhere but where the model puts it out."""
    rows = evidence.scored[name]
    scores = {
        "loss": lambda: metrics.loss_scores(rows.logps),
        "zlib": lambda: metrics.zlib_scores(rows.logps, evidence.texts[name]),
        "min_k": lambda: metrics.min_k_scores(rows.logps),
        "min_k_plus_plus": lambda: metrics.min_k_plus_plus_scores(rows.logps, rows.means, rows.deviations),
        "reference": lambda: metrics.reference_scores(rows.nll_per_token, _reference_nll(name, evidence.oracle)),
        "gradient_norm": lambda: metrics.gradient_norm_scores(evidence.gradient_norms[name]),
    }
    return {attack: scores[attack]() for attack in attacks}


def _reference_nll(name: str, oracle: EvaluationResult | None) -> np.ndarray:
    assert oracle is not None  # checked when the suite was built
    return np.array(oracle.row_scores[f"{name}_nll"])


def membership_metrics(evidence: Evidence, attacks: Sequence[str]) -> Metrics:
    """Whether forget rows can be told from holdout rows that the model never saw.

    For each attack the AUC (forget rows are the members) and the TPR at 1% FPR; with a retrained model's result also
    privleak and the relative difference of the AUC.
    """
    members = membership_scores("forget", evidence, attacks)
    others = membership_scores("holdout", evidence, attacks)
    measured: Metrics = {}
    for attack in attacks:
        auc = metrics.membership_auc(members[attack], others[attack])
        measured[f"{attack}_auc"] = auc
        measured[f"{attack}_tpr"] = metrics.tpr_at_fpr(members[attack], others[attack], fpr=0.01)
        # Under the reference attack the retrained model is its own reference: its AUC is 0.5 and says nothing.
        if evidence.oracle is not None and attack != "reference":
            retrained = evidence.oracle[f"{attack}_auc"]
            if np.isfinite(retrained.value) and retrained.value != 1:
                measured[f"{attack}_privleak"] = metrics.privleak(auc, retrained)
            if np.isfinite(retrained.value) and retrained.value != 0:
                measured[f"{attack}_auc_relative_difference"] = metrics.relative_difference(auc, retrained)
    return measured


def membership_warnings(measured: Metrics, oracle: EvaluationResult | None, attacks: Sequence[str]) -> list[str]:
    """Figures that are left out because they would divide by zero, and forget rows that stand out as unlikely."""
    warnings = []
    for attack in attacks:
        auc, retrained = measured[f"{attack}_auc"], None
        if oracle is not None and attack != "reference":
            retrained = oracle[f"{attack}_auc"]
            for useless, figure in ((1, "privleak"), (0, "auc_relative_difference")):
                if retrained.value == useless or not np.isfinite(retrained.value):
                    warnings.append(f"{attack}_{figure} is left out: the oracle's AUC is {retrained.value:g}.")
        level = 0.5 if retrained is None or retrained.low is None else retrained.low
        if attack in ("loss", "min_k") and auc.high is not None and auc.high < level:
            warnings.append(
                f"Forget rows are less likely than rows that the model never saw ({attack} AUC {auc.value:.2f}): they "
                "stand out, and it shows what was unlearned."
            )
    return warnings


def row_nll(evidence: Evidence) -> dict[str, list[float]]:
    """NLL per token of every scored row, what another model's evaluation needs of this one."""
    return {f"{name}_nll": rows.nll_per_token.tolist() for name, rows in evidence.scored.items()}


def usable_attacks(
    asked: Sequence[str] | None, sets: Mapping[str, object], oracle: EvaluationResult | None
) -> tuple[str, ...]:
    """The attacks of a suite, checked: none without holdout rows, no `reference` without an oracle."""
    attacks = chosen(CHEAP_ATTACKS if asked is None else asked, ATTACKS, "attacks")
    if "holdout" not in sets:
        if asked:
            raise input_error(
                expected="holdout=... with attacks=...",
                got="no holdout rows",
                why="an attack tells forget rows from rows that the model has never seen",
                fix="pass such rows as holdout, or leave attacks out",
            )
        return ()
    compared = [] if oracle is None else [attack for attack in attacks if attack != "reference"]
    lacking = [attack for attack in compared if oracle is not None and f"{attack}_auc" not in oracle.metrics]
    if lacking:
        raise input_error(
            expected=f"an oracle's result with the attacks {', '.join(attacks)}",
            got=f"one without {lacking[0]}",
            why="privleak and the relative difference compare the AUC with the oracle's",
            fix="evaluate the oracle with the same holdout rows and attacks",
        )
    if "reference" in attacks and oracle is None:
        raise input_error(
            expected="oracle=... with the reference attack",
            got="no result of a retrained model",
            why="the attack compares each row's NLL per token with the one that a model gives it that never saw it",
            fix="evaluate the retrained model first and pass its result as oracle, or leave 'reference' out",
        )
    return attacks
