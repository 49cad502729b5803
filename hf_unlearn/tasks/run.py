"""One run: evaluation, training, evaluation again; then table, results.json, plots and card."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from trl import get_peft_config

from ..data.provenance import source_of
from ..evaluation import EvaluationResult, comparison_table, evaluate
from ..model.fingerprints import hash_weights
from ..model.loading import load_tokenizer, loading
from ..progress import phase
from ..results.answers_table import answers_table
from ..results.attack_table import attack_table
from ..results.hub.names import require_metadata
from ..results.lineage import Lineage
from ..results.record import RECORD_FILE
from ..results.report import read_run, write_plots
from ..results.verdict import verdict
from ..training.levels.setting import splits_holdout
from ..training.model_setup import load_model, move_unless_quantized
from ..training.trainer import UnlearningTrainer
from .arguments import Parsed, RunArguments
from .attack_saved import AttackOptions, attack_saved, require_attacks
from .command_file import recipe_hash, write_command
from .phases.plan import neutral, plan_phases
from .phases.run import PhasedRun, tell_phases
from .preflight import preflight
from .shown_answers import ShownAnswers, read_prompts
from .task import Task, require_checkpoint, require_model, require_output, require_unseen, suite_of

_COSTS = ("seconds", "peak_memory_mb")  # in the table for people


@dataclass
class RunEvaluator:
    """Measures every model of a run in the same way: suite, prompts to show, fluency model."""

    task: Task
    script: RunArguments
    trainer: UnlearningTrainer
    shown: ShownAnswers

    def __call__(
        self,
        name: str,
        model: nn.Module,
        fluency_model: nn.Module,
        before: EvaluationResult | None = None,
        oracle: EvaluationResult | None = None,
    ) -> EvaluationResult:
        """The result of one model, written to evaluation_<name>.json and put into the record."""
        partial = None
        if self.script.partial_dir is not None:
            # Named after the weights too: what an earlier run found of another model is left alone.
            weights = hash_weights(self.trainer.accelerator.unwrap_model(model))[:12]
            partial = Path(self.script.partial_dir) / f"{name}-{weights}"
        with phase(name):
            result = evaluate(
                model,
                self.trainer.processing_class,
                suite_of(
                    self.task,
                    unfitted=splits_holdout(self.trainer.args),
                    count=self.script.evaluated_rows,
                    half=self.script.evaluated_half,
                    before=before,
                    oracle=oracle,
                ),
                batch_size=self.trainer.args.per_device_eval_batch_size,
                accelerator=self.trainer.accelerator,
                fluency_model=fluency_model,
                seed=self.trainer.args.seed,
                partial=partial,
            )
            self.shown.ask(name, model)
        if self.trainer.is_world_process_zero():
            result.save(Path(self.trainer.args.output_dir) / f"evaluation_{name}.json")
        self.trainer.add_evaluation(name, result)
        return result


def run(task: Task, name: str, parsed: Parsed) -> UnlearningTrainer:
    """Measure, unlearn, measure again; save the model, print the table, write results.json, plots and the card.

    Args:
        task: what is unlearned and how it is measured.
        name: of the task.
        parsed: the arguments.
    """
    script = parsed.script
    phases = None if script.phases is None else plan_phases(name, parsed)
    prompts = _require_runnable(task, name, parsed, phased=phases is not None)
    own = parsed if phases is None else neutral(name, parsed, task.sets)
    trainer = UnlearningTrainer(
        model=task.model,
        args=own.args,
        train_dataset=task.sets,
        processing_class=load_tokenizer(task.model, parsed.model.model_revision, own.args.init_kwargs),
        peft_config=get_peft_config(parsed.model) if phases is None else None,
    )
    _fill_in(trainer, task, name, parsed)
    phased = None if phases is None else PhasedRun(task, phases, trainer, parsed)
    # Refused before anything is measured.
    checkpoint = trainer.run_folder.open(own.args.resume_from_checkpoint)
    begun = checkpoint is not None if phased is None else phased.begun
    measure = RunEvaluator(task, script, trainer, ShownAnswers(prompts, trainer, script.max_new_tokens))
    results = measure_before(measure, parsed) if script.measure else {}
    if script.measure and not begun:  # a run that goes on has passed it
        with phase("before"):
            preflight(trainer, task.sets, results["before"], results.get("oracle"), force=script.force)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # what was measured so far is no cost of the training
    trainer.train(resume_from_checkpoint=checkpoint) if phased is None else phased()
    # No push yet, and no card: both come when the results are there that the card is to have.
    trainer.save_model(_internal_call=True, card=False)
    trainer.save_state()
    if phased is not None:
        phased.saved()
    if script.measure:
        fluent = move_unless_quantized(load_model(task.model, own.args), own.args.device)
        after = measure("after", trainer.model, fluent, before=results["before"], oracle=results.get("oracle"))
        results = {"before": results["before"], "after": after} | results
    _write_up(trainer, task, name, parsed, measure, results)
    if script.attack is not None:
        _attack(trainer, task, parsed)
    if own.args.push_to_hub:
        trainer.push_to_hub()
    trainer.end()
    return trainer


def _require_runnable(task: Task, name: str, parsed: Parsed, *, phased: bool) -> list[str]:
    """Refuse what would come to light after hours; the prompts whose answers are shown."""
    script, args = parsed.script, parsed.args
    if not phased:
        require_checkpoint(args)
    for model in (task.model, task.oracle, script.checkpoint):
        require_model(model)
    prompts = read_prompts(script.show_prompts)
    continued = task.continued is not None and task.continued.adapter
    require_output(args, adapter=(parsed.model.use_peft or continued) and not phased)
    require_metadata(script.license, script.language, ())
    if not phased:
        require_unseen(name, task, args)
    if script.attack is not None:
        require_attacks(task, script.attack, ())
    return prompts


def _write_up(
    trainer: UnlearningTrainer,
    task: Task,
    name: str,
    parsed: Parsed,
    measure: RunEvaluator,
    results: dict[str, EvaluationResult],
) -> None:
    """Command, shown answers, record, plots and card, and the table for people; by the main process."""
    if not trainer.is_world_process_zero():
        return
    folder = Path(parsed.args.output_dir)
    write_command(name, parsed, folder, models=task, launch=shlex.split(_launched(trainer)))
    measure.shown.save(folder)
    trainer.write_record()
    write_plots(read_run(folder), folder)
    trainer.write_card()
    _tell(trainer, task, results)


def _attack(trainer: UnlearningTrainer, task: Task, parsed: Parsed) -> None:
    """Attack the model as it was saved, with its controls, and put the report into record, plots and card."""
    trainer.accelerator.wait_for_everyone()  # all of the run's folder is there
    report = attack_saved(task, parsed, AttackOptions(parsed.script.attack, seed=parsed.args.seed))
    trainer.record.attack_report = report.without_rows()
    if trainer.is_world_process_zero():
        print(f"\n{attack_table(report)}")


def _fill_in(trainer: UnlearningTrainer, task: Task, name: str, parsed: Parsed) -> None:
    """Write into the record what the trainer cannot know of the run."""
    record, script = trainer.record, parsed.script
    record.task = name
    start = Lineage() if task.continued is None else task.continued.lineage
    requests = () if task.deletion is None else tuple(task.deletion.requests)
    record.lineage = replace(start, requests=requests, recipe=recipe_hash(name, parsed))
    record.recipe = parsed.recipe and f"{parsed.recipe}{_launched(trainer)}"
    record.oracle = task.oracle_is if task.oracle is not None and script.measure else None
    record.metadata.license, record.metadata.language = script.license, list(script.language or [])
    record.deletion = task.deletion
    record.model.fitted_from, record.model.fitted_origin = task.fitted_from, task.fitted_origin
    for set_record in record.sets.values():
        set_record.untouched = set_record.origin in ("hub", "lab")  # read by this package, which puts no row into them
    if task.from_lab:
        record.model.origin, record.model.id = "lab", source_of(task.sets["forget"]).id
    if task.continued is not None:
        task.continued.describe(record, new_adapter=parsed.model.use_peft and script.phases is None)


def _launched(trainer: UnlearningTrainer) -> str:
    """The flags that start as many processes as these, for the command that repeats the run."""
    distributed = trainer.distributed
    strategy = distributed.strategy.lower().replace("-", "")
    if distributed.processes == 1 and strategy == "one process":
        return ""
    return f" --accelerate_config {strategy} --num_processes {distributed.processes}"


def measure_before(measure: RunEvaluator, parsed: Parsed) -> dict[str, EvaluationResult]:
    """Results of the oracle, if there is one, and of the model before unlearning."""
    task, args, trainer = measure.task, parsed.args, measure.trainer
    results = {}
    if task.oracle is not None:
        same = task.oracle == parsed.model.model_name_or_path
        options = {**args.init_kwargs, "revision": parsed.model.model_revision if same else None}
        with loading(task.oracle):
            model = move_unless_quantized(AutoModelForCausalLM.from_pretrained(task.oracle, **options), args.device)
        results["oracle"] = measure("oracle", model, trainer.model)
        del model
    return {"before": measure("before", trainer.model, trainer.model, oracle=results.get("oracle"))} | results


def _tell(trainer: UnlearningTrainer, task: Task, results: dict[str, EvaluationResult]) -> None:
    """Print the table of results, and where the files lie."""
    folder, adapter = Path(trainer.args.output_dir), trainer.record.model.adapter is not None
    if results:
        cost = {name: trainer.record.cost[name] for name in _COSTS if name in trainer.record.cost}
        print(f"\n{comparison_table(results, {'after': cost})}\n\n95% intervals in brackets.")
        oracle = [f"The oracle is {task.oracle_is}."] if task.oracle is not None else []
        for line in (*task.notes, *oracle, *(f"Warning, after: {warning}" for warning in results["after"].warnings)):
            print(line)
        print(f"\n{answers_table(verdict(trainer.record).answers)}\n")
    if trainer.record.phases:
        print(
            "\n".join([*tell_phases(trainer.record.phases), *(f"Warning: {one}" for one in trainer.record.warnings)])
        )
    else:
        print(f"Stopped early: {trainer.stop_reason}." if trainer.stop_reason else "All steps were taken.")
    print(f"{'Adapter' if adapter else 'Model'}: {folder}\nResults: {folder / RECORD_FILE}")
    print(f"Card: {folder / 'README.md'}\nA page for people: hf-unlearn report {folder}")
