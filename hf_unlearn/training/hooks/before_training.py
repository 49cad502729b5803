"""What is measured of the model before the first step: reference log-probs, row bound, levels of the stop rules."""

from accelerate import Accelerator
from torch import nn

from ...model.output_head import output_head
from ...model.probe import ModelProbe
from ...model.score_rows import RowScorer
from ...progress import phase
from ..baseline import Baseline, measure_baseline, watched_rows
from ..distributed_setup import DistributedSetup
from ..levels.measure import measure_levels
from ..prepared_run import PreparedRun
from ..probing import probe_for_training
from ..reference.cache import ReferenceCache, precompute
from ..reference.reference import Reference
from .callbacks import StopRules


class BaselineMeasurement:
    """Measures a model as it was before unlearning, once.

    When that is possible depends on who holds the parameters, and is the trainer's to decide: a model that every rank
    holds whole is measured before Trainer loads a checkpoint into it; one that is split over ranks (ZeRO-3, FSDP) as
    soon as it is wrapped, because before that nothing puts its parameters together.

    Args:
        run: with training data.
        reference: is given what the losses look up of it.
        distributed: how the run is spread over processes.

    Attributes:
        baseline: what was measured; None until then.
    """

    def __init__(self, run: PreparedRun, reference: Reference, distributed: DistributedSetup) -> None:
        assert run.sets.train is not None
        self._run, self._sets, self._reference, self._distributed = run, run.sets.train, reference, distributed
        self.baseline: Baseline | None = None

    def measure(self, model: nn.Module, accelerator: Accelerator, stop_rules: StopRules) -> ModelProbe:
        """What kind of model it is; cached reference log-probs, levels, the row bound and what the stop rules watch.

        Args:
            model: before unlearning; wrapped where it is split over ranks. Every rank calls it.
            accelerator: of the trainer.
            stop_rules: are told the levels.
        """
        with phase("before"):
            return self._measure(model, accelerator, stop_rules)

    def _measure(self, model: nn.Module, accelerator: Accelerator, stop_rules: StopRules) -> ModelProbe:
        args, sets = self._run.args, self._sets
        scorer = RowScorer(self._run.collator, accelerator, args.per_device_eval_batch_size)
        layered = bool(self._run.objective.layers) or any(
            a.attack_layer is not None for a in self._run.methods.attacks
        )
        probe = probe_for_training(model, accelerator, args, self._run.left_padding, reads_blocks=layered)
        cache = ReferenceCache(scorer, self._run.options.tokenizer, args.reference_cache_dir, self._run.options.cache)
        before = self._reference.source(model)  # a ref_model is what the model was before unlearning
        k = min(args.reference_top_k, output_head(accelerator.unwrap_model(model)).vocabulary)
        precompute(self._reference, model, sets, cache, k)
        evaluated = "retain" in stop_rules.evaluated
        watched = self._run.sets.evaluation["retain"] if evaluated else watched_rows(sets.retain)
        tokens, profiled = self._run.objective.needs.token_levels, self._run.sets.profiled
        levels, unseen = measure_levels(before, args, sets, profiled, cache, self._distributed, tokens=tokens)
        self.baseline = measure_baseline(before, args, scorer, sets, watched, levels, unseen)
        stop_rules.watch(self.baseline.forget_target, self.baseline.retain_limit(args))
        return probe

    def restart(self) -> None:
        """Another model is to be measured: `model_init` has made one."""
        self.baseline = None
