"""Stage 6b, evaluation: suites of metrics over one pass of a model's likelihoods and answers. It changes no model."""

from ..results.evaluation_result import EvaluationResult, load_result
from ..results.table import comparison_table
from .callback import UnlearningEvalCallback
from .evaluate import evaluate
from .generation import generate_answers
from .harness.suite import lm_eval
from .harness.tasks import multiple_choice, truthfulqa_mc
from .judges.judge import HarmfulnessJudge, Judge, RecitalJudge, RuleJudge
from .judges.training import JudgeArguments, train_judge
from .suite import Suite
from .suites.copyright import copyright
from .suites.custom import custom
from .suites.harmful import harmful
from .suites.tofu import tofu

__all__ = [
    "EvaluationResult",
    "HarmfulnessJudge",
    "Judge",
    "JudgeArguments",
    "RecitalJudge",
    "RuleJudge",
    "Suite",
    "UnlearningEvalCallback",
    "comparison_table",
    "copyright",
    "custom",
    "evaluate",
    "generate_answers",
    "harmful",
    "lm_eval",
    "load_result",
    "multiple_choice",
    "tofu",
    "train_judge",
    "truthfulqa_mc",
]
