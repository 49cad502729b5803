"""Stage 3, what the model was before unlearning, known the cheapest exact way. Never the model being changed."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_compiled_module
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from trl.models import prepare_deepspeed, prepare_fsdp

from .config import UnlearningConfig
from .data.roles import Role
from .errors import input_error
from .losses.base import Needs
from .measurement import RowLogps, evaluation_mode
from .objective import Objective
from .reference_plan import ReferenceMode, ReferencePlan, Setting, plan_reference, unavailable
from .scoring import Batch, Likelihoods, RowScores, Scores, score, select_roles
from .taps import Taps, decoder_blocks


def has_trained_adapter(model: nn.Module) -> bool:
    """Whether a PeftModel's adapters already change its output: a LoRA B not zero, or another kind of adapter."""
    if not isinstance(model, PeftModel):
        return False
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if any("lora_" not in name for name, _ in trainable):
        return True
    # A frozen adapter that is active counts too: switching adapters off would take it away with the one that unlearns.
    active = set(model.active_adapters)
    matrices = [
        p
        for name, p in model.named_parameters()
        if ("lora_B" in name or "lora_embedding_B" in name) and active.intersection(name.split("."))
    ]
    # Some initialisations (PiSSA, OLoRA) start from B != 0 and take its product off the base weights.
    return not matrices or any(bool(p.detach().any()) for p in matrices)


@dataclass
class Reference:
    """The reference of a run, bound to the model as it was before the first step.

    Args:
        plan: which modes are in use.
        needs: what the losses ask of the reference.
        layers: where they read its hidden states.
        copy_model: makes the frozen copy when the plan has one: a given ref_model, a reload, or a deep copy.
        given: the user passed the model, so that precomputed log-probs are taken from it and not from the policy.
    """

    plan: ReferencePlan
    needs: Needs
    layers: frozenset[float] = frozenset()
    copy_model: Callable[[nn.Module], nn.Module] = copy.deepcopy
    given: bool = False
    _frozen: nn.Module | None = None
    _frozen_head: nn.Module | None = None
    _adapted: PeftModel | None = None
    _taps: Taps | None = None
    _initial: dict[str, Tensor] = field(default_factory=dict)
    _stored: dict[Role, RowLogps] = field(default_factory=dict)
    _starts: dict[Role, Tensor] = field(default_factory=dict)

    def bind(self, model: nn.Module) -> None:
        """Remember `model` as it is now, before anything wraps, moves or changes it."""
        self._stored, self._starts, self._initial = {}, {}, {}
        self._frozen = self._frozen_head = None
        self._adapted = model if isinstance(model, PeftModel) else None
        if ReferenceMode.FROZEN_COPY in self.plan.modes or self.given:
            frozen: Any = self.copy_model(model).requires_grad_(False).eval()
            self._frozen, self._frozen_head = frozen, frozen.get_output_embeddings()
        if self.needs.reference_hidden:
            self._taps = Taps(decoder_blocks(model if self._frozen is None else self._frozen), self.layers)
        if ReferenceMode.ADAPTER_DISABLED in self.plan.modes and has_trained_adapter(model):
            self._initial = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    def prepare(self, accelerator: Accelerator) -> None:
        """Put the frozen copy on its device(s): sharded as the policy is under ZeRO-3 and FSDP."""
        if self._frozen is None:
            return
        if getattr(accelerator.state, "deepspeed_plugin", None) is not None:
            self._frozen = prepare_deepspeed(self._frozen, accelerator)
        elif getattr(accelerator.state, "fsdp_plugin", None) is not None:
            self._frozen = prepare_fsdp(self._frozen, accelerator)
        else:
            self._frozen = accelerator.prepare_model(self._frozen, evaluation_mode=True)

    def source(self, model: nn.Module) -> nn.Module:
        """The model that precomputed log-probs are taken from, before the first step."""
        return model if self._frozen is None else self._frozen

    def release(self) -> None:
        """Let go of a given model once all that it was for is stored."""
        if ReferenceMode.FROZEN_COPY not in self.plan.modes:
            self._frozen = self._frozen_head = None

    def store(self, role: Role, logps: RowLogps, device: torch.device) -> None:
        """Keep the precomputed log-probs of a role's whole set on the device."""
        self._stored[role] = logps.to(device)
        self._starts[role] = self._stored[role].lengths.cumsum(0) - self._stored[role].lengths

    def attach(self, accelerator: Accelerator, model: nn.Module, batch: Batch, scores: Scores) -> Scores:
        """The scores of a batch, with the reference that the losses need: looked up, or from at most one forward."""
        precomputed = self.needs.reference_logps if self.plan.logps is ReferenceMode.PRECOMPUTED else frozenset()
        present = {role for role, _ in scores.items()}
        live = ((self.needs.reference_logps - precomputed) | self.needs.reference_live) & present
        references = {role: self._look_up(role, rows) for role, rows in scores.items() if role in precomputed}
        if live:
            part = select_roles(batch, live)
            with self._as_reference(model) as (reference, head), evaluation_mode(reference), accelerator.autocast():
                forward, _ = score(
                    reference,
                    head,
                    part,
                    logits=self.needs.reference_logits,
                    taps=self._taps,
                    likelihoods=self._likelihoods(precomputed),
                )
            for role, rows in forward.items():
                found = references.get(role)
                references[role] = rows if found is None else replace(rows, logps=found.logps)
        return scores.with_reference(references)

    def _likelihoods(self, precomputed: frozenset[Role]) -> Likelihoods:
        """The forward goes past the hidden states where log-probs or distributions are needed of it."""
        read = self.needs.reference_logits or self.needs.reference_logps - precomputed
        return Likelihoods.READ if read else Likelihoods.NONE

    @contextlib.contextmanager
    def _as_reference(self, model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
        """The reference and its output head, while it is needed."""
        if self._frozen is not None:
            assert self._frozen_head is not None
            yield self._frozen, self._frozen_head
            return
        adapted = self._adapted
        assert adapted is not None
        # DDP broadcasts buffers at every forward, and a rank without rows to compare makes none: the others would
        # wait.
        plain = isinstance(model, DistributedDataParallel) or is_compiled_module(model)
        with self._initial_adapter(adapted) if self._initial else adapted.disable_adapter():
            yield adapted if plain else model, adapted.get_output_embeddings()

    @contextlib.contextmanager
    def _initial_adapter(self, adapted: PeftModel) -> Iterator[None]:
        parameters = {n: p for n, p in adapted.named_parameters() if n in self._initial}
        trained = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                self._initial[name] = self._initial[name].to(parameter.device)
                parameter.data = self._initial[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = trained[name]

    def _look_up(self, role: Role, rows: RowScores) -> RowScores:
        stored = self._stored[role]
        if not torch.equal(stored.lengths[rows.row], rows.lengths):
            raise input_error(
                expected=f"the {role.name.lower()} rows whose reference log-probs were computed before training",
                got="rows of other lengths",
                why="log-probs of other tokens would be taken for the reference's",
                fix="use the package's collator and leave the data as the trainer got it, or set reference='copy'",
            )
        offsets = rows.lengths.cumsum(0) - rows.lengths
        first = self._starts[role][rows.row] - offsets
        total = len(rows.logps)
        shift = torch.repeat_interleave(first, rows.lengths, output_size=total)
        logps = stored.logps[torch.arange(total, device=shift.device) + shift]
        return RowScores(logps, rows.token_ids, rows.lengths, rows.source, rows.row)


def build_reference(
    objective: Objective,
    args: UnlearningConfig,
    model: nn.Module,
    *,
    stream: bool,
    sharded: bool,
    ref_model: nn.Module | None,
    reload: Callable[[], nn.Module] | None,
) -> Reference:
    """The reference of a run, not yet bound to its model.

    Args:
        objective: what the losses ask of it.
        args: of the run.
        model: before unlearning.
        stream: a needed set has no length.
        sharded: parameters are split over ranks.
        ref_model: given by the user.
        reload: loads the model again, where a deep copy is not possible because its parameters are split over ranks.
    """
    needs, layers = objective.needs, objective.reference_layers
    setting = Setting(
        peft=isinstance(model, PeftModel),
        trained_adapter=has_trained_adapter(model),
        given=ref_model is not None,
        stream=stream,
        sharded=sharded,
        sparse=args.retain_ratio < 1,
    )
    plan = plan_reference(needs, args.reference, setting)
    if ref_model is not None:
        return Reference(plan, needs, layers, copy_model=lambda _: ref_model, given=True)
    if not sharded:
        return Reference(plan, needs, layers)
    if ReferenceMode.FROZEN_COPY in plan.modes and reload is None:
        raise unavailable(
            "a model given by name or path, or ref_model, under ZeRO-3 and FSDP",
            "a loaded model, whose parameters are split over ranks and cannot be copied",
            "pass model='org/name', or load ref_model the same way",
        )
    return Reference(plan, needs, layers, copy_model=lambda _: reload())  # type: ignore[misc]
