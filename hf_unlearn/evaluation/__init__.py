"""Evaluation: suites of metrics over one pass of a model's likelihoods and answers. It changes no model."""

from ..results.evaluation_result import EvaluationResult, load_result
from ..results.table import comparison_table
from .callback import UnlearningEvalCallback
from .evaluate import evaluate
from .evidence import AnsweredRows, Evidence, ScoredRows
from .generated_rows import generate_retain_rows
from .generation import generate_answers
from .harness.suite import lm_eval
from .harness.tasks import multiple_choice, truthfulqa_mc
from .judges.judge import HarmfulnessJudge, Judge, RecitalJudge, RuleJudge
from .judges.judgement import CountingJudge, Judgement
from .judges.language_model import LanguageModelJudge, language_model_judge
from .judges.training import JudgeArguments, train_judge
from .suite import Suite, SuiteOutput
from .suites.copyright import copyright
from .suites.custom import RowArguments, custom, row_suite
from .suites.harmful import harmful
from .suites.muse import muse
from .suites.names import SUITES
from .suites.rwku import rwku
from .suites.tofu import tofu
from .suites.unlearn_qa import unlearn_qa
from .suites.wmdp import wmdp

__all__ = [
    "SUITES",
    "AnsweredRows",
    "CountingJudge",
    "EvaluationResult",
    "Evidence",
    "HarmfulnessJudge",
    "Judge",
    "JudgeArguments",
    "Judgement",
    "LanguageModelJudge",
    "RecitalJudge",
    "RowArguments",
    "RuleJudge",
    "ScoredRows",
    "Suite",
    "SuiteOutput",
    "UnlearningEvalCallback",
    "comparison_table",
    "copyright",
    "custom",
    "evaluate",
    "generate_answers",
    "generate_retain_rows",
    "harmful",
    "language_model_judge",
    "lm_eval",
    "load_result",
    "multiple_choice",
    "muse",
    "row_suite",
    "rwku",
    "tofu",
    "train_judge",
    "truthfulqa_mc",
    "unlearn_qa",
    "wmdp",
]
