"""`language_model_judge`: a language model with a stated prompt as judge, local or behind an endpoint."""

import inspect
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ...errors import input_error, require_choice, require_range
from ...metrics.agreement import Agreement
from ...metrics.checks import same_lengths
from ...metrics.text import is_empty
from .agreement import read_agreement
from .endpoint import Endpoint
from .judgement import CountingJudge, Judgement
from .label_likelihoods import LabelLikelihoods
from .prompts import LABELS, JudgePrompt, judge_prompt
from .replies import ReplySource
from .reply_cache import ReplyCache


class LanguageModelJudge(CountingJudge):
    """A language model as judge: an answer is flagged where the first label's share is above the threshold.

    An answer without a letter or a digit is not flagged, and nobody is asked. Each distinct question is asked once.

    Args:
        source: the model.
        prompt: what it is asked.
        threshold: between 0 and 1; of replies that are read by their words it changes nothing.
        agreement: with a person, measured before by `measure_agreement`.
    """

    def __init__(
        self, source: ReplySource, prompt: JudgePrompt, *, threshold: float = 0.5, agreement: Agreement | None = None
    ) -> None:
        require_range("threshold", threshold, above=0, below=1)
        self.source, self.prompt, self.threshold, self.agreement = source, prompt, threshold, agreement

    @property
    def name(self) -> str:
        """Model, version and place, the purpose, the hash of the prompt, and the threshold."""
        asked = f"{self.prompt.purpose}, prompt {self.prompt.sha256[:12]}, threshold {self.threshold:g}"
        return f"{self.source.name} ({asked})"

    @property
    def flags_leaks(self) -> bool:
        """False for a judge of refusals."""
        return self.prompt.purpose != "refusal"

    def record(self) -> dict[str, Any]:
        """Model, version and place, purpose and hash of the prompt, threshold, and the agreement where known."""
        asked = {
            "purpose": self.prompt.purpose,
            "prompt_sha256": self.prompt.sha256,
            "labels": list(self.prompt.labels),
            "threshold": self.threshold,
        }
        known = {} if self.agreement is None else {"agreement": self.agreement.to_dict()}
        return self.source.record() | asked | known

    def judgement(
        self, answers: Sequence[str], references: Sequence[str], questions: Sequence[str] | None = None
    ) -> Judgement:
        """What is found of each answer; raises ValueError for lists of unlike length."""
        same_lengths(answers=answers, references=references)
        if questions is not None:
            same_lengths(answers=answers, questions=questions)
        filled = [
            None if is_empty(answer) else self.prompt.filled(answer, own, None if questions is None else questions[i])
            for i, (answer, own) in enumerate(zip(answers, references, strict=True))
        ]
        distinct = list(dict.fromkeys(text for text in filled if text is not None))
        found, run = self.source.replies(distinct, self.prompt.labels)
        replies = dict(zip(distinct, found, strict=True))
        flags: list[bool | None] = []
        errors: Counter[str] = Counter()
        for text in filled:
            share, error = (0.0, "") if text is None else replies[text][:2]
            flags.append(None if share is None else share > self.threshold)
            errors.update([error] if share is None else [])
        return Judgement(tuple(flags), dict(errors), run)


def language_model_judge(
    model: str | Path | PreTrainedModel,
    *,
    endpoint: str | None = None,
    purpose: str = "fact",
    prompt: str | Path | None = None,
    labels: Sequence[str] = LABELS,
    threshold: float = 0.5,
    agreement: Agreement | str | Path | None = None,
    **options: Any,
) -> LanguageModelJudge:
    """A judge that asks a causal language model; it fits wherever a `Judge` does.

    A local model is not asked to write: the likelihoods of both labels are compared. With `endpoint` the answers, and
    the rows' own where the prompt has them, are SENT there: it has to be named here, and no default or environment
    variable stands for it.

    Args:
        model: folder, id on the Hub, or a loaded model; with an endpoint the model's name there.
        endpoint: base URL of an OpenAI-compatible server, such as "https://host/v1"; None for a local model.
        purpose: "fact" (does the answer reveal what the row's own answer says), "behaviour" (does it show what the
            row's own answer is an example of), or "refusal" (does it refuse; such flags are no leaks).
        prompt: instead of the packaged one, a text with {answer}, and {reference} and {question} where wanted; a
            `Path` for a file. Its hash goes into the record.
        labels: of a flagged answer and of another.
        threshold: share of the first label above which an answer is flagged, between 0 and 1.
        agreement: with people, as `measure_agreement` found it or the file that it was saved to; it goes into results.
        options: of a local model `tokenizer` (of a loaded one), `revision`, `batch_size`, `device`, `dtype`, as
            `LabelLikelihoods` has them; of an endpoint `key_variable`, `timeout`, `retries`, `workers`,
            `reply_tokens`, `likelihood` and `cache` (a file), as `Endpoint` has them.

    Raises:
        ValueError: a model that cannot be loaded, an address or an option that is none, an unknown purpose, a prompt
            without {answer}, a threshold out of range, or an agreement of another judge.
    """
    asked = judge_prompt(purpose, prompt, labels)
    known = LabelLikelihoods if endpoint is None else Endpoint
    taken = [name for name in inspect.signature(known).parameters if name not in ("model", "endpoint")]
    for name in options:
        require_choice("option of the judge", name, taken)
    source: ReplySource
    if endpoint is None:
        source = LabelLikelihoods(model, **options)
    else:
        cache = options.pop("cache", None)
        source = Endpoint(str(model), endpoint, cache=ReplyCache(cache), **options)
    judge = LanguageModelJudge(source, asked, threshold=threshold)
    judge.agreement = agreement if isinstance(agreement, Agreement | None) else read_agreement(agreement)
    if judge.agreement is not None and judge.agreement.judge != judge.name:
        raise input_error(
            expected=f"an agreement that was measured of {judge.name}",
            got=f"one of {judge.agreement.judge or 'an unnamed judge'}",
            why="another model, prompt or threshold agrees with people in another measure",
            fix="measure it again: hf-unlearn judge",
        )
    return judge
