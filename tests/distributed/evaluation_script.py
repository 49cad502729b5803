"""Evaluations that must not depend on the number of processes, started on each rank by a launcher. Not their tests.

    torchrun --nproc_per_node 2 evaluation_script.py FOLDER NAME [NAME ...]

Every rank writes FOLDER/<name>-<world size>-<rank>.pt: what the suite found, the answers, what it scored itself.
"""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator

from fixtures.models import FORGET, HOLDOUT, RETAIN, make_trainer, tiny_model, tiny_tokenizer
from fixtures.muse_rows import mapping
from fixtures.rwku_rows import UTILITY
from fixtures.rwku_rows import mapping as rwku_mapping
from fixtures.wmdp_rows import MMLU
from fixtures.wmdp_rows import ROWS as WMDP_ROWS
from hf_unlearn.evaluation import (
    RuleJudge,
    UnlearningEvalCallback,
    custom,
    evaluate,
    harmful,
    muse,
    one_pass,
    rwku,
    wmdp,
)
from hf_unlearn.evaluation.suite import Suite

# 11 + 8 - 1 + 10 distinct rows and 18 distinct prompts: neither batches of 3 nor two ranks come out even.
SETS = {"forget": FORGET[:11], "retain": [*RETAIN[:7], FORGET[0]], "holdout": HOLDOUT}
ROWS, PROMPTS = 28, 18
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradient_norm")

# What is passed to `evaluate` beside model, tokenizer and suite.
RUNS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": dict(temperature=1.0, seed=7),
    "fluency": dict(temperature=1.0, fluency=True),
    "few_rows": dict(rows=1),  # the second rank has nothing to do
    "muse": dict(muse=True),  # answers of two lengths
    "wmdp": dict(wmdp=True),  # sets of letters, four rows a question
    "rwku": dict(rwku=True),
}


class Killed(Exception):
    """Stands for whatever ends a process."""


def suite_of(rows: int | None, kept: list[Any]) -> Suite:
    """A suite over the first rows of each set that keeps its evidence too."""
    sets = {name: each[:rows] for name, each in SETS.items()}
    judge = RuleJudge("a letter", lambda answer: "a" in answer)
    suite = harmful(**sets, judge=judge, attacks=ATTACKS, max_new_tokens=6)
    return keeping(suite, kept)


def keeping(suite: Suite, kept: list[Any]) -> Suite:
    """The suite, whose evidence is kept."""
    measure = suite.measure
    return replace(suite, measure=lambda evidence: kept.append(evidence) or measure(evidence))


def run(name: str, folder: Path | None = None, *, batches: int | None = None) -> dict[str, Any]:
    """One of the RUNS; what it gives must be the same for every world size.

    Args:
        name: of the run.
        folder: for partial findings.
        batches: that many are scored by this rank before it is killed.
    """
    options = dict(RUNS[name])
    rows, fluency = options.pop("rows", None), options.pop("fluency", False)
    kept: list[Any] = []
    if options.pop("muse", False):
        suite = keeping(muse(mapping(), verbmem_tokens=8, knowmem_tokens=5, published=True), kept)
    elif options.pop("wmdp", False):
        suite = keeping(wmdp(WMDP_ROWS, MMLU, max_length=100, max_new_tokens=6), kept)
    elif options.pop("rwku", False):
        lengths = dict(answer_tokens=5, reason_tokens=4, fluency_tokens=3, max_length=120)
        suite = keeping(rwku(rwku_mapping(**UTILITY), published=True, **lengths), kept)
    else:
        suite = suite_of(rows, kept)
    scored: list[int] = []
    figures = one_pass.token_figures

    def counted(scores: Any) -> Any:
        if len(scored) == batches:
            raise Killed
        scored.append(len(scores.lengths))
        return figures(scores)

    one_pass.token_figures = counted
    try:
        result = evaluate(
            tiny_model(),
            tiny_tokenizer(),
            suite,
            batch_size=3,
            accelerator=Accelerator(cpu=True),
            fluency_model=tiny_model(seed=1) if fluency else None,
            partial=folder,
            **options,
        )
    finally:
        one_pass.token_figures = figures
    return {
        "num_processes": result.processes,
        "scored": scored,
        "cost": {"rows": result.cost["rows"], "rows_scored": result.cost["rows_scored"]},
        "metrics": {name: [each.value, each.n, each.low, each.high] for name, each in result.metrics.items()},
        "row_scores": result.row_scores,
        "rows": result.rows,
        "warnings": result.warnings,
        # Every rank has the metrics, but the main process alone measures.
        "answers": {name: list(each.answers) for name, each in kept[0].answered.items()} if kept else None,
        "tokens": {name: [row.tolist() for row in each.tokens] for name, each in kept[0].scored.items()}
        if kept
        else None,
    }


def run_refused() -> dict[str, Any]:
    """What each rank is told of an error that one of them meets: a judge's on the first, of weights on the second."""

    def judge(answer: str) -> bool:
        raise ValueError("no such answer")

    accelerator = Accelerator(cpu=True)
    suite = harmful(forget=FORGET[:4], retain=RETAIN[:4], judge=RuleJudge("refusing", judge), max_new_tokens=2)
    broken = tiny_model()
    if accelerator.process_index == 1:
        broken.model.norm.weight.data.fill_(math.nan)
    errors: list[str | None] = [None, None]
    for place, model in enumerate((tiny_model(), broken)):
        try:
            evaluate(model, tiny_tokenizer(), suite, accelerator=accelerator)
        except ValueError as error:
            errors[place] = str(error)
    return {"num_processes": accelerator.num_processes, "errors": errors}


def run_callback(folder: Path, world_size: int) -> dict[str, Any]:
    """A suite at the evaluations of a run: what each rank has logged."""
    callback = UnlearningEvalCallback(custom(**SETS, max_new_tokens=4))
    trainer = make_trainer(
        folder / f"callback-{world_size}",
        tiny_model(),
        callbacks=[callback],
        per_device_train_batch_size=4 // world_size,
        per_device_eval_batch_size=3,
        max_steps=2,
        eval_dataset=RETAIN[20:26],
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_custom_forget_nll",
        greater_is_better=True,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_custom_holdout_nll" in entry]
    return {
        "num_processes": trainer.accelerator.num_processes,
        "steps": [entry["step"] for entry in logged],
        "logged": [{name: value for name, value in entry.items() if name != "epoch"} for entry in logged],
        "best": trainer.state.best_metric,
    }


def main(folder: Path, names: list[str]) -> None:
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    for name in names:
        if name == "callback":
            result = run_callback(folder, world_size)
        elif name == "refused":
            result = run_refused()
        elif name == "resumed":
            result = run("sampled", folder / "partial")
        else:
            result = run(name)
        torch.save(result, folder / f"{name}-{world_size}-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
