"""Carries out the phases of a run, one after another; each leaves its weights and record in a folder of its own."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers.utils import logging
from trl import get_peft_config

from ... import progress
from ...data.digests import set_digest
from ...edits import apply
from ...errors import input_error
from ...model.fingerprints import hash_parts, hash_weights
from ...model.merging import merge
from ...results.files import atomic_write_text, read_json
from ...results.phase_record import EDIT, SUPPRESS, TRAIN, PhaseRecord
from ...results.phase_words import phase_rows
from ...results.record import RECORD_FILE
from ...results.schema import as_json, build
from ...results.suppression_report import SUPPRESSION_FOLDER as SUPPRESSION
from ...suppression import load_suppressor, suppress
from ...training.baseline import measures_before
from ...training.checkpoints.selection import whole_steps
from ...training.hooks.run_description import changed_arguments
from ...training.levels.setting import HOLDOUT, NGRAM
from ...training.methods import Methods
from ...training.model_setup import load_model, move_unless_quantized
from ...training.objective import build_objective
from ...training.trainer import UnlearningTrainer
from ..arguments import Parsed
from ..task import Task
from .plan import Phase

logger = logging.get_logger(__name__)

_RECORD, _WEIGHTS = "phase.json", "weights"  # in a phase's folder


@dataclass
class PhasedRun:
    """The phases of a run.

    Attributes:
        task: model and rows.
        phases: in order.
        trainer: stands for the run; its model is the one before unlearning until the phases are done.
        parsed: arguments of the run.
    """

    task: Task
    phases: list[Phase]
    trainer: UnlearningTrainer
    parsed: Parsed

    @property
    def resuming(self) -> bool:
        """Whether finished phases of an earlier start are taken over."""
        asked = str(self.parsed.args.resume_from_checkpoint).lower()
        if asked not in ("true", "false", "none"):
            raise input_error(
                expected="resume_from_checkpoint to be true or false, for a run of phases",
                got="the name of a checkpoint",
                why="it goes on from its last finished phase, and inside a training from its last checkpoint",
                fix="--resume_from_checkpoint true",
            )
        return asked == "true"

    @property
    def begun(self) -> bool:
        """Whether a phase is done that the run goes on from."""
        return self.resuming and self._finished(self.phases[0]) is not None

    def __call__(self) -> None:
        """Carry out what is not done yet; the trainer then has the model that came of it, and the record of each."""
        self.trainer.record.phases = []
        model, suppressor, weights_of = self.task.model, None, None  # and the phase whose folder holds the weights
        for phase in self.phases:
            record = self._finished(phase) if self.resuming else None
            if record is None:
                record = self._carry_out(phase, model, suppressor)
            self.trainer.record.phases.append(record)
            if phase.kind == SUPPRESS:
                suppressor = self._kept_suppressor(phase)
                continue
            self._remove_copy(weights_of)
            model, suppressor, weights_of = str(self._kept_weights(phase)), None, phase
        final = self._loaded(model)
        if suppressor is not None:
            load_suppressor(suppressor).install(final)
        self.trainer.model = self.trainer.model_wrapped = final

    def saved(self) -> None:
        """The model lies in the run's folder: put its suppressor beside it, and remove the phases' copies."""
        if not self.trainer.is_world_process_zero():
            return
        place = self._run_folder / SUPPRESSION
        fitted = self._kept_suppressor(self.phases[-1])
        if self.phases[-1].kind != SUPPRESS:
            shutil.rmtree(place, ignore_errors=True)  # of an earlier run
        elif fitted != place:  # else it is the run's own already, which was done and is resumed
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(fitted, place)
        for phase in self.phases:
            self._remove_copy(phase)

    def _carry_out(self, phase: Phase, model: str, suppressor: Path | None) -> PhaseRecord:
        """Do a phase and keep its result and its record, the record last.

        Args:
            phase: to be done.
            model: folder or name of the model that it starts from.
            suppressor: folder of the suppressor that a training distils; None where no phase has fitted one.
        """
        folder = self._folder(phase)
        if self.trainer.is_world_process_zero() and not self.resuming:
            shutil.rmtree(folder, ignore_errors=True)
        self.trainer.accelerator.wait_for_everyone()
        shown = self.trainer.is_local_process_zero()
        with progress.phase(f"phase {phase.number}, {phase.name}", one_line=True, shown=shown):
            if phase.kind == TRAIN:
                record, result = self._train(phase, model, suppressor)
            else:
                record, result = (self._edit if phase.kind == EDIT else self._suppress)(phase, model)
        if self.trainer.is_world_process_zero():
            name, save = (SUPPRESSION, result.save) if phase.kind == SUPPRESS else (_WEIGHTS, result.save_pretrained)
            unfinished = folder / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            save(unfinished)
            unfinished.rename(folder / name)
            stored = {"made_from": self._made_from(phase), "record": as_json(record)}
            atomic_write_text(folder / _RECORD, json.dumps(stored, indent=2) + "\n")
        self.trainer.accelerator.wait_for_everyone()
        return record

    def _edit(self, phase: Phase, model: str) -> tuple[PhaseRecord, Any]:
        report = apply(
            phase.component,
            self._loaded(model),
            self.task.sets,
            checkpoint=self.parsed.script.checkpoint or self.task.checkpoint,
            before=None if model == self.task.model else self.trainer.model,
            judge=self.task.judge,
            **self._shared,
        )
        return PhaseRecord.of_edit(report), report.model

    def _suppress(self, phase: Phase, model: str) -> tuple[PhaseRecord, Any]:
        report = suppress(phase.component, self._loaded(model), self.task.sets, **self._shared)
        return PhaseRecord.of_suppression(report), report.suppressor

    @property
    def _shared(self) -> dict[str, Any]:
        """Arguments of edits and suppressions: how rows are read and scored."""
        args = self.parsed.args
        return {
            "tokenizer": self.trainer.processing_class,
            "level": args.levels if args.levels in (NGRAM, HOLDOUT) else None,
            "batch_size": args.per_device_eval_batch_size,
            "seed": args.seed,
            "template": args.template,
            "max_length": args.max_length,
            "chat_template_kwargs": args.template_variables,
            "accelerator": self.trainer.accelerator,
        }

    def _loaded(self, model: str) -> Any:
        return move_unless_quantized(load_model(model, self.parsed.args), self.trainer.args.device)

    def _train(self, phase: Phase, model: str, suppressor: Path | None) -> tuple[PhaseRecord, Any]:
        """Train a model; the reference is the suppressed one where there is one, else the model before unlearning."""
        assert phase.parsed is not None
        args = phase.parsed.args
        read = build_objective(Methods.resolve(args), args).needs.reference or measures_before(args)
        reference = self.trainer.model if read and model != self.task.model else None
        if suppressor is not None:
            reference = self._loaded(model)
            load_suppressor(suppressor).install(reference)
        trainer = UnlearningTrainer(
            model=model,
            args=args,
            train_dataset=self.task.sets,
            processing_class=self.trainer.processing_class,
            peft_config=get_peft_config(phase.parsed.model),
            ref_model=reference,
        )
        folder = self._folder(phase)
        checkpoint = trainer.run_folder.open(self.resuming and bool(whole_steps(folder)))
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.write_record()
        record = PhaseRecord.of_training(trainer.record)
        result = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        trainer.close()
        if self.trainer.is_world_process_zero():
            (folder / RECORD_FILE).unlink(missing_ok=True)  # the run's own record holds it
        return record, merge(result) if isinstance(result, PeftModel) else result

    def _finished(self, phase: Phase) -> PhaseRecord | None:
        """The record of a phase that is done; None of one that is not."""
        folder = self._folder(phase)
        if not (folder / _RECORD).is_file():
            return None
        stored = read_json(folder / _RECORD)
        if stored["made_from"] != self._made_from(phase):
            raise input_error(
                expected=f"the run whose phase {phase.number} lies in {folder.parent.name}/{folder.name}",
                got="other phases, rows, weights or arguments",
                why="the run would be made of two that have nothing to do with each other",
                fix="resume with what it was started with, or leave resume_from_checkpoint out to start anew",
            )
        record: PhaseRecord = build(stored["record"], PhaseRecord)
        return record

    def _made_from(self, phase: Phase) -> str:
        """Hash of all that the weights after a phase depend on."""
        until = self.phases[: phase.number]
        trained = [None if one.parsed is None else as_json(changed_arguments(one.parsed.args)) for one in until]
        parts = {"phases": [one.spec() for one in until], "arguments": trained}
        return hash_parts(self._start | parts | {"checkpoint": self.parsed.script.checkpoint})

    @cached_property
    def _start(self) -> dict[str, Any]:
        sets = self.trainer.train_sets
        assert sets is not None
        rows = {"forget": sets.forget, "retain": sets.retain, "holdout": sets.holdout}
        digests = {name: set_digest(listed) for name, listed in rows.items() if listed is not None}
        return {"weights": hash_weights(self.trainer.model), "rows": digests, "seed": self.parsed.args.seed}

    @property
    def _run_folder(self) -> Path:
        return Path(self.parsed.args.output_dir)

    def _folder(self, phase: Phase) -> Path:
        return self._run_folder / phase.folder

    def _kept_weights(self, phase: Phase) -> Path:
        """Where the weights after a phase lie; those of the last one of a run that is done are the run's own."""
        kept = self._folder(phase) / _WEIGHTS
        return kept if kept.is_dir() else self._run_folder

    def _kept_suppressor(self, phase: Phase) -> Path:
        """Where the suppressor of a phase lies: likewise."""
        kept = self._folder(phase) / SUPPRESSION
        return kept if kept.is_dir() else self._run_folder / SUPPRESSION

    def _remove_copy(self, phase: Phase | None) -> None:
        """Remove what a phase has left for the next one."""
        if phase is not None and self.trainer.is_world_process_zero():
            for name in (_WEIGHTS, SUPPRESSION):
                shutil.rmtree(self._folder(phase) / name, ignore_errors=True)


def tell_phases(records: list[PhaseRecord]) -> list[str]:
    """Lines for people: what each phase did to the forget rows, and what it took."""
    lines = []
    for row in phase_rows(records):
        change = f"forget {row.forget}" if row.forget else row.arguments
        change += f", retain {row.retain}" if row.retain else ""
        unit = " nats per token" if row.forget else ""
        lines.append(f"Phase {row.number}, {row.what}: {change}{unit}, {row.took}.")
    return lines
