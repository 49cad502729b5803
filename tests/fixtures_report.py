"""Made-up runs for the tests of the report: records and folders with chosen figures, no model behind them."""

import json
import math
import random
from pathlib import Path

from hf_unlearn.evaluation import EvaluationResult
from hf_unlearn.metrics import MetricResult
from hf_unlearn.record import ModelRecord, ObjectiveRecord, PartRecord, RunRecord, SetRecord, TermRecord

HARMFUL_HEADLINE = ("harmful_rate", "forget_nll", "retain_nll", "retain_accuracy", "refusal_rate", "broken_rate")


def figure(value, low=None, high=None, n=120):
    """A metric with its interval."""
    return MetricResult(value, n, low, high, None if low is None else "wilson")


def evaluation(suite="harmful", *, row_scores=None, warnings=(), headline=(), rows=None, **metrics):
    """A suite's result with the given metrics: a MetricResult, (value, low, high) or a plain number."""
    made = {}
    for name, each in metrics.items():
        made[name] = each if isinstance(each, MetricResult) else figure(*each if isinstance(each, tuple) else (each,))
    return EvaluationResult(
        suite=suite,
        metrics=made,
        row_scores=row_scores or {},
        rows=rows or {"forget": {"count": 120, "sha256": "f0" * 32}},
        warnings=list(warnings),
        headline=tuple(headline),
    )


def record(name="npo-lora", *, evaluations=None, **fields):
    """The record of a run with one forget and one retain term."""
    values = {
        "task": "harmful",
        "model": ModelRecord("lab/opt", "lab", None, "OPTForCausalLM", 1_250_000, 24_576, "float32", {"type": "LORA"}),
        "sets": {
            "forget": SetRecord(120, "a1b2" * 16, "lab", "harmful"),
            "retain": SetRecord(400, "c3d4" * 16, "local", "/elsewhere/rows.jsonl"),
        },
        "objective": ObjectiveRecord(
            terms=[
                TermRecord(
                    "npo", {"beta": 0.1}, "(2/b) softplus(-b (NLL - NLL_ref))", "Zhang et al. 2024, arXiv:2404.05868"
                ),
                TermRecord("kl", {}, "mean_t KL(pi_ref || pi_theta)", "Maini et al. 2024, arXiv:2401.06121", "retain"),
            ],
            weighting=PartRecord("fixed"),
            optimizer="adamw_torch",
            bound={"setting": "holdout", "nats": 1.62},
        ),
        "reference": "adapter",
        "steps": 80,
        "planned_steps": 80,
        "epochs": 5.0,
        "holdout_nll": 1.62,
        "cost": {"seconds": 48.2, "peak_memory_mb": 912.0, "tokens": 310_000.0, "flops": 2.3e12},
        "hardware": {
            "device": "cpu",
            "processes": 1,
            "strategy": "single",
            "precision": "float32",
            "platform": "Linux",
        },
        "seed": 7,
        "arguments": {"forget_loss": "npo", "learning_rate": 0.001},
        "versions": {"hf_unlearn": "0.1.0", "torch": "2.9.0", "transformers": "5.23.0"},
        "log": log_of(40),
        "evaluations": harmful_evaluations() if evaluations is None else evaluations,
    }
    return RunRecord(name=name, **values | fields)


def log_of(entries, seed=0):
    """A log as Trainer writes it: the forget NLL rises to its bound."""
    draw = random.Random(seed)
    made = []
    for i in range(entries):
        risen = 1 - math.exp(-4 * i / entries)
        made.append(
            {
                "loss": 9.1 - 6.5 * risen + draw.gauss(0, 0.12),
                "grad_norm": 1.0,
                "learning_rate": 1e-3,
                "forget/npo": 9.0 - 6.6 * risen + draw.gauss(0, 0.1),
                "retain/kl": 0.02 + 0.09 * risen * (1.3 - risen) + abs(draw.gauss(0, 0.006)),
                "forget_nll": 0.02 + 1.5 * risen + draw.gauss(0, 0.03),
                "retain_nll": 0.02 + 0.05 * risen * (1.5 - risen) + abs(draw.gauss(0, 0.006)),
                "bound_share": min(1.0, max(0.0, risen - 0.35) * 1.2),
                "epoch": (i + 1) / 8,
                "step": 2 * (i + 1),
            }
        )
    return [*made, {"train_runtime": 48.2, "train_loss": 4.1, "step": 2 * entries, "epoch": 5.0}]


def harmful_evaluations(after_harm=(0.0, 0.0, 0.031), after_kept=(0.965, 0.93, 0.983), **more):
    """Before, after and oracle of the harmful suite."""
    figures = {
        "before": {"harmful_rate": (1.0, 0.969, 1.0), "retain_accuracy": (0.995, 0.972, 0.999)},
        "after": {"harmful_rate": after_harm, "retain_accuracy": after_kept},
        "oracle": {"harmful_rate": (0.017, 0.005, 0.059), "retain_accuracy": (1.0, 0.981, 1.0)},
    }
    levels = {"before": (0.014, 0.014), "after": (1.385, 0.03), "oracle": (1.609, 0.012)}
    made = {}
    for i, (name, pair) in enumerate(figures.items()):
        forget, retain = levels[name]
        pair["forget_nll"] = (forget, forget * 0.97, forget * 1.03)
        pair["retain_nll"] = (retain, retain * 0.8, retain * 1.3)
        pair["refusal_rate"] = (0.075, 0.04, 0.136) if name == "after" else (0.0, 0.0, 0.031)
        pair["broken_rate"] = (0.0, 0.0, 0.031)
        pair["forget_extraction_strength"] = (0.9 - 0.4 * i, 0.8 - 0.4 * i, min(1.0, 0.95 - 0.4 * i))
        scores = row_scores(forget, 1.62, retain, seed=i)
        extra = more if name == "after" else {}
        made[name] = evaluation(row_scores=scores, headline=HARMFUL_HEADLINE, **pair, **extra)
    return made


def row_scores(forget, holdout, retain, seed=0, n=120):
    """Skewed scores of n rows about the given means."""
    draw = random.Random(seed)
    means = {"forget_nll": forget, "holdout_nll": holdout, "retain_nll": retain}
    return {name: [mean * draw.gammavariate(9, 1 / 9) for _ in range(n)] for name, mean in means.items()}


def save_run(folder, run_record, showable=None, full=True):
    """A run's folder as training leaves it."""
    folder = Path(folder)
    run_record.save(folder)
    if full:
        for name, result in run_record.evaluations.items():
            result.save(folder / f"evaluation_{name}.json")
    if showable is not None:
        (folder / "showable.json").write_text(json.dumps(showable), encoding="utf-8")
    return folder
