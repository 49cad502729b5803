"""attack(): tries attacks on a model and on its controls, and reports how much more the model gives away."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data.prepare import RowOptions
from ..errors import input_error, require_choice, require_range
from ..evaluation.checks import require_fit
from ..evaluation.versions import library_versions
from ..model.fingerprints import hash_answers, hash_tokenizer, hash_weights
from ..model.sharding import is_sharded
from ..results.attack_report import BEFORE, MODEL, ORACLE, UNSEEN, AttackFinding, AttackReport, SubjectLeak
from ..training.method_specs import components_of, parse_text
from .base import Attack
from .findings import findings_and_worst
from .jobs import Done, Job, run_jobs
from .subjects import AttackSets, attack_sets, subjects
from .suites import ATTACK_SUITES
from .target import Target


def attack(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Any,
    attacks: Any = "quick",
    *,
    controls: Any = None,
    oracle: Any = None,
    before: Any = None,
    budget: float | None = None,
    seed: int = 0,
    batch_size: int = 32,
    limit: int | None = 200,
    judge: Any = None,
    template: str | None = None,
    max_length: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    partial: str | Path | None = None,
    accelerator: Accelerator | None = None,
) -> AttackReport:
    """Try attacks on a model and, with the same budget and seed, on its controls.

    What counts is the excess: leak(model) - max(leak(oracle), leak of rows never seen). An attack chooses its setting
    on one half of the rows, for each subject anew, and is reported on the other. Models and random states are left as
    they are.

    Args:
        model: after unlearning, whole, on the accelerator's device; an adapter on its base counts as one model.
        tokenizer: of the model, with a padding and an end-of-text token.
        rows: the forget rows in any accepted format, or a mapping of sets: `forget`; `retain` (for utility, and for
            attackers who know such rows); `related` (same form, other things) and `unrelated` (other texts), which
            relearning is tried with; `paraphrases` (other prompts, as many for each forget row).
        attacks: name of a suite ("quick", "standard", "thorough"), or attacks by name, mapping or object, or a list of
            these.
        controls: rows like the forget rows that no model has seen and no run was fitted to (`measurement_rows`).
        oracle: model retrained without the forget rows, or several of different seeds.
        before: the model before unlearning.
        budget: minutes after which no further attack is begun; None for no limit.
        seed: of everything that is drawn.
        batch_size: rows of a forward.
        limit: at most so many forget rows and controls are attacked; None for all.
        judge: of generated answers, as `hf_unlearn.evaluation.Judge`; None for overlap with the row's own answer.
        template, max_length, chat_template_kwargs: how rows become tokens, as in UnlearningConfig.
        partial: folder in which finished attacks are kept until all are done; a killed call goes on from there.
        accelerator: whose ranks share the attacks; a new one if None.

    Raises:
        ValueError: no control, an unknown attack, one by name that cannot be tried, too few rows, a split model.
    """
    _require_numbers(batch_size, limit, budget)
    oracles = list(oracle) if isinstance(oracle, list | tuple) else [oracle] if oracle is not None else []
    _require_control(oracles, controls)
    accelerator = accelerator or Accelerator()
    _require_models([model, *oracles, *([] if before is None else [before])], tokenizer, accelerator)
    options = RowOptions(tokenizer, max_length, template, None, chat_template_kwargs=chat_template_kwargs)
    sets = attack_sets(rows, controls, options, model, limit=limit)
    given = {"before": before, "oracle": oracles[0] if oracles else None, "judge": judge, "ends": sets.ends}
    target = Target(model, tokenizer, retain=sets.retain, batch_size=batch_size, seed=seed, **given)
    attempt = _Attempt(*attacks_of(attacks), target, oracles, sets, accelerator)
    return attempt(None if partial is None else Path(partial), budget)


@dataclass(frozen=True)
class _Attempt:
    """Attacks on a model, checked; the arguments are those of `attack`."""

    suite: str | None
    tried: list[Attack]
    target: Target
    oracles: list[Any]
    sets: AttackSets
    accelerator: Accelerator

    def __call__(self, folder: Path | None, minutes: float | None) -> AttackReport:
        started, sets = time.perf_counter(), self.sets
        jobs, skipped = self._jobs()
        done = Done(folder, self._depends_on(), functools.cache(hash_answers))
        leaks = run_jobs(jobs, sets, done, self.accelerator, minutes=minutes) if jobs else {}
        whole, begun = _whole(jobs, leaks)
        skipped |= {name: f"the budget of {minutes:g} minutes was used up" for name in begun if name not in whole}
        findings, worst = findings_and_worst(
            {one.name: one for one in self.tried}, whole, unseen=len(sets.controls), seed=self.target.seed
        )
        if self.accelerator.is_main_process and len(whole) == len(begun):
            done.remove(jobs)
        return AttackReport(
            findings=findings,
            worst=worst,
            skipped=skipped,
            suite=self.suite,
            attacked_rows=len(sets.forget),
            reported_rows=len(sets.forget) - len(sets.forget) // 2,
            unseen_rows=len(sets.controls),
            oracles=len(self.oracles),
            sha256=sets.digests["forget"],
            weights=hash_weights(self.target.model),
            seed=self.target.seed,
            seconds=time.perf_counter() - started,
            warnings=_warnings(findings, sets, oracle=bool(self.oracles), before=self.target.before is not None),
            versions=library_versions(),
        )

    def _jobs(self) -> tuple[list[Job], dict[str, str]]:
        """Every attack on every subject that it fits, and why attacks do not fit the model."""
        jobs, skipped = [], {}
        for one in self.tried:
            for subject in subjects(self.target, self.oracles, self.sets):
                why = one.unfit(subject.target, self.sets.rows(control=subject.control_rows))
                if why is None:
                    jobs.append(Job(one, subject))
                elif subject.name == MODEL and self.suite is None:
                    raise input_error(
                        expected=f"a model and rows that {one.name} can be tried on",
                        got=f"that {why}",
                        why="it was asked for by name",
                        fix="pass what it needs, or leave it out of attacks",
                    )
                elif subject.name == MODEL:
                    skipped[one.name] = why
                    break
        return jobs, skipped

    def _depends_on(self) -> dict[str, Any]:
        """What results depend on beside attack and subject."""
        target, judge = self.target, self.target.judge
        return {
            "rows": self.sets.digests,
            "tokenizer": hash_tokenizer(target.tokenizer),
            "judge": None if judge is None else type(judge).__name__,
            "batch_size": target.batch_size,
        }


def attacks_of(spec: Any) -> tuple[str | None, list[Attack]]:
    """The suite that a spec names, or None, and its attacks.

    Args:
        spec: as `attack` takes it; also as JSON, from a command line.

    Raises:
        ValueError: an unknown name, with the nearest ones.
    """
    from . import ATTACKS

    spec = parse_text(spec)
    if isinstance(spec, str) and spec in ATTACK_SUITES:
        return spec, components_of(ATTACK_SUITES[spec], ATTACKS, Attack, "attacks")
    if isinstance(spec, str):
        require_choice("attacks", spec, [*ATTACKS, *ATTACK_SUITES])
    return None, components_of(spec, ATTACKS, Attack, "attacks")


def _whole(
    jobs: Sequence[Job], leaks: Mapping[tuple[str, str], SubjectLeak]
) -> tuple[dict[str, dict[str, SubjectLeak]], list[str]]:
    """By attack, the leak of every subject, where all of them are there; and the names of all attacks with a job."""
    names = list(dict.fromkeys(job.key[0] for job in jobs))
    keys = {name: [job.key for job in jobs if job.key[0] == name] for name in names}
    whole = {name: own for name, own in keys.items() if all(key in leaks for key in own)}
    return {name: {key[1]: leaks[key] for key in own} for name, own in whole.items()}, names


def _warnings(findings: Sequence[AttackFinding], sets: AttackSets, *, oracle: bool, before: bool) -> list[str]:
    """What a reader must know of the controls and of attacks that show nothing."""
    warnings = []
    if not oracle:
        warnings.append(
            "No retrained model was given: the excess is over what attacks get of rows never seen, of the same model."
        )
    if not len(sets.controls):
        warnings.append("There were no rows never seen: the excess is over the retrained model alone.")
    if not before:
        warnings.append("Without the model before unlearning it is not known what the attacks would have got of it.")
    reported = len(sets.forget) - len(sets.forget) // 2
    if reported < 30:
        warnings.append(f"Only {reported} rows are reported: the intervals are wide.")
    for finding in findings:
        old = finding.subjects.get(BEFORE)
        nothing = max((leak.leak for name, leak in finding.subjects.items() if name in (ORACLE, UNSEEN)), default=0.0)
        if old is not None and not old.low > nothing:
            warnings.append(
                f"{finding.name} gets no more of the model before unlearning than of its controls: that it gets "
                "nothing now says nothing."
            )
    return warnings


def _require_numbers(batch_size: int, limit: int | None, budget: float | None) -> None:
    require_range("batch_size", batch_size, at_least=1, whole=True)
    if limit is not None:
        require_range("limit", limit, at_least=1, whole=True)
    if budget is not None:
        require_range("budget", budget, above=0)


def _require_models(models: Sequence[Any], tokenizer: Any, accelerator: Accelerator) -> None:
    for given in models:
        if not isinstance(given, nn.Module):
            raise input_error(
                expected="loaded causal language models as model, oracle and before",
                got=f"a {type(given).__name__}",
                why="they are attacked as they are in memory",
                fix="AutoModelForCausalLM.from_pretrained(...)",
            )
        if is_sharded(given):
            raise input_error(
                expected="models that are whole on every rank",
                got="one whose parameters are split over ranks (ZeRO-3 or FSDP)",
                why="every rank runs attacks of its own, and some of them change a copy of the weights",
                fix="save the model and attack the saved one: hf-unlearn attack RUN",
            )
        require_fit(given, tokenizer, accelerator)


def _require_control(oracles: Sequence[Any], controls: Any) -> None:
    if not oracles and (controls is None or len(controls) == 0):
        raise input_error(
            expected="a control: controls (rows never seen) or oracle (a model retrained without the forget rows)",
            got="neither",
            why="what an attack gets counts only beyond what it gets where nothing was ever learnt",
            fix="attack(..., controls=measurement_rows(holdout)), or oracle=model",
        )
