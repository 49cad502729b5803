"""Naive oracles of the metrics: one formula each, loops over rows, pairs and thresholds. Not the package's metrics.

They share no code with `hf_unlearn.metrics`: plain Python and `math`, no array, no sort where a count will do, no
interval but Wilson's. Slow, and short enough to check by eye. Inputs are well formed: what the package refuses is not
refused again here.

Over the n answer tokens of a row, lp_t is the log-prob of token t (nats) and nll = -mean_t lp_t. `correct` is one list
of bools a row: whether the greedy token is the answer's at each position.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from nltk.stem.porter import PorterStemmer

Z_95 = NormalDist().inv_cdf(0.975)


def average(values: Sequence[float]) -> float:
    """sum / count."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The share's values that a normal test at the true variance p (1 - p) / n would not reject at 5%."""
    share = successes / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return centre - half, centre + half


# --- Likelihood ---


def answer_probability(nll_per_token: Sequence[float]) -> float:
    """mean_i exp(-nll_i)."""
    return average([math.exp(-value) for value in nll_per_token])


def option_probability(nll_per_token: Sequence[float], options_nll_per_token: Sequence[Sequence[float]]) -> float:
    """mean_i p_i / (p_i + sum_k p_ik), p = exp(-nll)."""
    shares = []
    for value, options in zip(nll_per_token, options_nll_per_token, strict=True):
        own, others = math.exp(-value), sum(math.exp(-option) for option in options)
        shares.append(own / (own + others))
    return average(shares)


def token_nll(nll_sum: Sequence[float], lengths: Sequence[int]) -> float:
    """sum NLL / sum tokens."""
    total, tokens = 0.0, 0
    for row_nll_sum, length in zip(nll_sum, lengths, strict=True):
        total, tokens = total + row_nll_sum, tokens + length
    return total / tokens


def exact_memorization(row: Sequence[bool]) -> float:
    """The share of right greedy tokens of one row."""
    return sum(1 for right in row if right) / len(row)


def extraction_strength(row: Sequence[bool]) -> float:
    """1 - k / n of one row, k the shortest prefix after which every token is right: each k tried in turn."""
    for k in range(len(row) + 1):
        if all(row[position] for position in range(k, len(row))):
            return 1 - k / len(row)
    raise AssertionError("after the whole row there is nothing left to be wrong")


# --- TOFU ---


def truth_ratio_of_row(paraphrased_nll_per_token: float, perturbed_nll_per_token: Sequence[float]) -> float:
    """(prod_k p_k)^(1 / K) / p, p = exp(-nll): the perturbed answers' geometric mean over the paraphrased one."""
    product = 1.0
    for value in perturbed_nll_per_token:
        product *= math.exp(-value)
    return product ** (1 / len(perturbed_nll_per_token)) / math.exp(-paraphrased_nll_per_token)


def truth_ratio(ratios: Sequence[float], variant: str) -> float:
    """forget: mean min(R, 1 / R); utility: mean max(0, 1 - R)."""
    if variant == "forget":
        return average([min(ratio, 1 / ratio) for ratio in ratios])
    return average([max(0.0, 1 - ratio) for ratio in ratios])


def ks_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """max_t |F_first(t) - F_second(t)|, at every value t of either sample."""
    largest = 0.0
    for threshold in [*first, *second]:
        below_first = sum(1 for value in first if value <= threshold) / len(first)
        below_second = sum(1 for value in second if value <= threshold) / len(second)
        largest = max(largest, abs(below_first - below_second))
    return largest


def ks_p(first: Sequence[float], second: Sequence[float]) -> float:
    """P(D >= the distance) under one distribution: all orders of the pooled samples, counted as lattice paths.

    An order is a path from (0, 0) to (n, m), a step right for a value of the first sample and up for one of the
    second; at (i, j) the two shares differ by |i / n - j / m|. The paths that stay within the distance are counted.
    """
    n, m = len(first), len(second)
    reached = round(ks_distance(first, second) * n * m)  # in whole numbers, so that equality is exact
    paths: dict[tuple[int, int], int] = {}
    for i in range(n + 1):
        for j in range(m + 1):
            if abs(i * m - j * n) >= reached:
                paths[i, j] = 0
            elif i == j == 0:
                paths[i, j] = 1
            else:
                paths[i, j] = paths.get((i - 1, j), 0) + paths.get((i, j - 1), 0)
    return 1 - paths[n, m] / math.comb(n + m, n)


def harmonic_mean(values: Sequence[float]) -> float:
    """n / sum_i 1 / v_i, and 0 where a value is 0."""
    total = 0.0
    for value in values:
        if value == 0:
            return 0.0
        total += 1 / value
    return len(values) / total


# --- Membership ---


def zlib_score(logps: Sequence[float], text: str) -> float:
    """Mean log-prob over the bytes of the zlib-compressed text."""
    return average(logps) / len(zlib.compress(text.encode("utf-8")))


def min_k_score(logps: Sequence[float], k: float) -> float:
    """Mean of the floor(k n) lowest log-probs, of one at least: the lowest is taken out again and again."""
    left, lowest = list(logps), []
    for _ in range(max(1, math.floor(k * len(logps)))):
        smallest = min(left)
        left.remove(smallest)
        lowest.append(smallest)
    return average(lowest)


def min_k_plus_plus_score(
    logps: Sequence[float], means: Sequence[float], deviations: Sequence[float], k: float
) -> float:
    """The same of z_t = (lp_t - mean_t) / deviation_t, 0 where the deviation is 0."""
    normalised = []
    for logp, mean, deviation in zip(logps, means, deviations, strict=True):
        normalised.append((logp - mean) / deviation if deviation > 0 else 0.0)
    return min_k_score(normalised, k)


def auc(members: Sequence[float], nonmembers: Sequence[float]) -> float:
    """The share of (member, non-member) pairs in which the member scores higher, a tie counting a half."""
    won = 0.0
    for member in members:
        for nonmember in nonmembers:
            if member > nonmember:
                won += 1
            elif member == nonmember:
                won += 0.5
    return won / (len(members) * len(nonmembers))


def tpr_at_fpr(members: Sequence[float], nonmembers: Sequence[float], fpr: float) -> float:
    """Share of members above the lowest threshold that at most the share `fpr` of non-members is above."""
    best = 0.0
    for threshold in [-math.inf, *members, *nonmembers]:
        false_positives = sum(1 for value in nonmembers if value > threshold) / len(nonmembers)
        if false_positives <= fpr:
            best = max(best, sum(1 for value in members if value > threshold) / len(members))
    return best


# --- Overlap ---


def rouge_tokens(text: str) -> list[str]:
    """Lower case, everything but a-z and 0-9 a space, words of more than three letters stemmed (Porter)."""
    spaced = "".join(char if char in "abcdefghijklmnopqrstuvwxyz0123456789" else " " for char in text.lower())
    stemmer = PorterStemmer()
    return [stemmer.stem(word) if len(word) > 3 else word for word in spaced.split()]


def rouge_1_recall(answer: str, reference: str) -> float:
    """Share of the reference's tokens that the answer has, each of its tokens matching one at most."""
    wanted, given = rouge_tokens(reference), rouge_tokens(answer)
    if not wanted:
        return 0.0
    found = 0
    for token in wanted:
        if token in given:
            given.remove(token)
            found += 1
    return found / len(wanted)


def rouge_l_recall(answer: str, reference: str) -> float:
    """Longest common subsequence of tokens over the reference's tokens."""
    wanted, given = rouge_tokens(reference), rouge_tokens(answer)
    if not wanted:
        return 0.0
    longest = [[0] * (len(given) + 1) for _ in range(len(wanted) + 1)]
    for i, left in enumerate(wanted):
        for j, right in enumerate(given):
            longest[i + 1][j + 1] = longest[i][j] + 1 if left == right else max(longest[i][j + 1], longest[i + 1][j])
    return longest[-1][-1] / len(wanted)


def common_substring(answer: str, reference: str) -> float:
    """Longest run of characters that both have over the reference's characters, runs of white space one space."""
    wanted, given = " ".join(reference.split()), " ".join(answer.split())
    best, before = 0, [0] * (len(given) + 1)
    for left in wanted:
        ending_here = [0] * (len(given) + 1)
        for j, right in enumerate(given):
            if left == right:
                ending_here[j + 1] = before[j] + 1
                best = max(best, ending_here[j + 1])
        before = ending_here
    return best / len(wanted)


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """BP (prod_n precision_n)^(1/4) of texts of plain words with some common n-gram of each length up to four."""
    log_precisions = 0.0
    for size in range(1, 5):
        matched = total = 0
        for answer, reference in zip(answers, references, strict=True):
            given, wanted = grams(answer.split(), size), grams(reference.split(), size)
            total += len(given)
            for gram in given:
                if gram in wanted:
                    wanted.remove(gram)
                    matched += 1
        log_precisions += math.log(matched / total) / 4
    answer_words = sum(len(answer.split()) for answer in answers)
    reference_words = sum(len(reference.split()) for reference in references)
    return math.exp(log_precisions + min(0.0, 1 - reference_words / answer_words))


# --- Words ---


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return "".join(char if char.isalnum() else " " for char in text.lower()).split()


def grams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Every run of `size` tokens."""
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def distinct_n(answers: Sequence[str], size: int) -> float:
    """Distinct n-grams over n-grams; none goes from one answer into the next."""
    seen: list[tuple[str, ...]] = []
    distinct = 0
    for answer in answers:
        for gram in grams(words(answer), size):
            distinct += gram not in seen
            seen.append(gram)
    return distinct / len(seen) if seen else 0.0


# --- A TOFU log ---


def tofu_values(log: Mapping[str, Mapping[str, Mapping[str, object]]]) -> dict[str, float]:
    """The aggregates of a log whose fields have the same indices in any order, forget quality aside."""
    sets = {
        "Retain": "eval_log.json",
        "Real Authors": "eval_real_author_wo_options.json",
        "Real World": "eval_real_world_wo_options.json",
        "Forget": "eval_log_forget.json",
    }
    values: dict[str, float] = {}
    for name, key in sets.items():
        fields = log[key]
        indices = list(fields["avg_gt_loss"])
        losses = [fields["avg_gt_loss"][index] for index in indices]
        perturbed = [fields["average_perturb_loss"][index] for index in indices]
        paraphrased = [fields["avg_paraphrased_loss"][index] for index in indices]
        ratios = [truth_ratio_of_row(*pair) for pair in zip(paraphrased, perturbed, strict=True)]
        values[f"ROUGE {name}"] = average([fields["rougeL_recall"][index] for index in indices])
        with_options = name.startswith("Real")
        values[f"Prob. {name}"] = option_probability(losses, perturbed) if with_options else answer_probability(losses)
        values[f"Truth Ratio {name}"] = truth_ratio(ratios, "forget" if name == "Forget" else "utility")
    values["Model Utility"] = harmonic_mean([value for name, value in values.items() if "Forget" not in name])
    return values
