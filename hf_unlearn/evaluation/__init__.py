"""Stage 6b, evaluation: suites of metrics over one pass of a model's likelihoods and answers. It changes no model."""

from .callback import UnlearningEvalCallback
from .copyright import copyright
from .custom import custom
from .evaluate import evaluate
from .generation import generate_answers
from .harmful import harmful
from .judge import HarmfulnessJudge, Judge, RecitalJudge, RuleJudge
from .judge_training import JudgeArguments, train_judge
from .lm_eval import lm_eval
from .lm_eval_tasks import multiple_choice, truthfulqa_mc
from .result import EvaluationResult, load_result
from .suite import Suite
from .table import comparison_table
from .tofu import tofu

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
