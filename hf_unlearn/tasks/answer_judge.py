"""Arguments that name a language model as judge of answers, for tasks, `evaluate --suite` and `judge`."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import input_error
from ..evaluation import LanguageModelJudge, language_model_judge

DEFAULT_PURPOSE = "fact"


@dataclass
class JudgeByModel:
    """How a language model judges answers; `judge` names it."""

    judge: str | None = field(
        default=None,
        metadata={"help": "Causal language model that judges answers: folder or Hub id, or its name at an endpoint."},
    )
    judge_purpose: str | None = field(
        default=None,
        metadata={"help": "What a language model is asked as judge: fact, behaviour or refusal; none: a classifier."},
    )
    judge_endpoint: str | None = field(
        default=None,
        metadata={
            "help": "Base URL of an OpenAI-compatible server, to which answers are SENT; its key is read from the "
            "environment variable HF_UNLEARN_JUDGE_KEY."
        },
    )
    judge_prompt: str | None = field(
        default=None, metadata={"help": "File with a prompt of your own, with {answer} in it."}
    )
    judge_cache: str | None = field(
        default=None, metadata={"help": "File in which an endpoint's replies are kept, so that none is paid twice."}
    )
    judge_agreement: str | None = field(
        default=None, metadata={"help": "What hf-unlearn judge wrote: how far it agrees with people."}
    )
    judge_threshold: float = field(default=0.5, metadata={"help": "Probability above which an answer is flagged."})


JUDGE_ARGUMENTS = tuple(one.name for one in fields(JudgeByModel))


def judged_by_model(values: Any, purpose: str | None = None) -> LanguageModelJudge | None:
    """The language model that arguments name as judge; None where they name none, or another kind of judge.

    Args:
        values: with the arguments of `JudgeByModel`.
        purpose: where they name none; None: then a judge without purpose and endpoint is no language model.

    Raises:
        ValueError: arguments of such a judge without one, or what `language_model_judge` refuses.
    """
    asked = values.judge_purpose or (None if values.judge_endpoint is None else purpose or DEFAULT_PURPOSE) or purpose
    own = ("judge_purpose", "judge_endpoint", "judge_prompt", "judge_cache", "judge_agreement")
    given = [name for name in own if getattr(values, name) is not None]
    if values.judge in (None, "none") or asked is None:
        if given:
            raise input_error(
                expected=f"--judge and --judge_purpose with --{given[0]}",
                got=f"--{given[0]} alone",
                why="it says how a language model judges, and none was named as judge",
                fix="add --judge with a model and --judge_purpose fact (or behaviour), or leave it out",
            )
        return None
    if values.judge_cache is not None and values.judge_endpoint is None:
        raise input_error(
            expected="--judge_cache with --judge_endpoint",
            got="--judge_cache alone",
            why="a local model's judgements cost nothing but time, and are not kept",
            fix="leave it out",
        )
    return language_model_judge(
        values.judge,
        endpoint=values.judge_endpoint,
        purpose=asked,
        prompt=None if values.judge_prompt is None else Path(values.judge_prompt),
        threshold=values.judge_threshold,
        agreement=values.judge_agreement,
        **({} if values.judge_cache is None else {"cache": values.judge_cache}),
    )
