"""The reference of a run: log-probs, distributions and hidden states of the model as it was before unlearning."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_compiled_module
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from trl.models import prepare_deepspeed, prepare_fsdp

from ...data.batch import Batch, answer_index, select_roles, without_answers
from ...data.roles import Role
from ...losses.base import Needs
from ...model.head_query import LogitCache, ReferenceLogits
from ...model.hidden_states import HiddenStateCapture, decoder_blocks
from ...model.logit_transform import LogitTransform
from ...model.output_head import OutputHead, output_head
from ...model.reference_logits import TopKLogits
from ...model.score_rows import RowHiddenStates, RowLogps, RowTopK, evaluation_mode
from ...model.scoring import Likelihoods, RowScores, score
from ..baseline import measures_before
from ..config import UnlearningConfig
from ..distributed_setup import DistributedSetup
from ..objective import Objective
from .checks import require_alike, require_given, require_same_rows
from .plan import ReferenceContext, ReferenceMode, ReferencePlan, plan_reference, require_8bit, unavailable
from .stored_hidden import StoredHidden


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
        sharded: parameters are split over ranks.
    """

    plan: ReferencePlan
    needs: Needs
    layers: frozenset[float] = frozenset()
    copy_model: Callable[[nn.Module], nn.Module] = copy.deepcopy
    given: bool = False
    sharded: bool = False
    _frozen: nn.Module | None = None
    _frozen_head: OutputHead | None = None
    _adapted: PeftModel | None = None
    _hidden_states: HiddenStateCapture | None = None
    _initial: dict[str, Tensor] = field(default_factory=dict)
    _stored: dict[Role, RowLogps] = field(default_factory=dict)
    _starts: dict[Role, np.ndarray] = field(default_factory=dict)
    _lengths: dict[Role, list[int]] = field(default_factory=dict)
    _top_k: dict[Role, tuple[RowTopK, list[int]]] = field(default_factory=dict)
    _hidden: StoredHidden | None = None

    def bind(self, model: nn.Module, accelerator: Accelerator, distributed: DistributedSetup) -> None:
        """Remember `model` as it is now, before anything wraps or changes it; a copy is sharded as it is to be."""
        self._stored, self._starts, self._lengths, self._top_k, self._initial = {}, {}, {}, {}, {}
        self._frozen = self._frozen_head = None
        self._adapted = model if isinstance(model, PeftModel) else None
        if ReferenceMode.FROZEN_COPY in self.plan.modes or self.given:
            frozen: Any = self.copy_model(model).requires_grad_(False).eval()
            self._frozen, self._frozen_head = frozen, output_head(frozen)
        if ReferenceMode.HIDDEN_STATES in self.plan.modes:
            self._hidden = StoredHidden.of(model if self._frozen is None else self._frozen)
        if self.needs.reference_hidden:
            self._hidden_states = HiddenStateCapture(
                decoder_blocks(model if self._frozen is None else self._frozen), self.layers
            )
        if ReferenceMode.ADAPTER_DISABLED in self.plan.modes and has_trained_adapter(model):
            self._initial = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        self._place(accelerator, distributed)

    def _place(self, accelerator: Accelerator, distributed: DistributedSetup) -> None:
        """Put the frozen copy on its device(s)."""
        if self._hidden is not None:
            self._hidden.place(accelerator.device)
        if self._frozen is None:
            return
        if distributed.deepspeed:
            self._frozen = prepare_deepspeed(self._frozen, accelerator)
        elif distributed.fsdp:
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
        self._lengths[role] = logps.lengths.tolist()
        self._stored[role] = logps.to(device)
        self._starts[role] = np.cumsum([0, *self._lengths[role][:-1]])

    def store_top_k(self, role: Role, likeliest: RowTopK) -> None:
        """Keep the likeliest tokens of a role's whole set, on the host."""
        self._lengths[role] = likeliest.lengths.tolist()
        self._top_k[role] = likeliest, [0, *accumulate(self._lengths[role])]

    def store_hidden(self, role: Role, rows: RowHiddenStates, transform: LogitTransform) -> None:
        """Keep the hidden states of a role's whole set; `transform` is from the head's logits to the model's."""
        assert self._hidden is not None
        self._lengths[role] = rows.lengths.tolist()
        self._hidden.store(role, rows, transform)

    def read(self, accelerator: Accelerator, model: nn.Module, batch: Batch) -> dict[Role, RowScores]:
        """What the losses need of the reference for a batch: looked up, or from at most one forward.

        Args:
            accelerator: of the run.
            model: that unlearns, wrapped.
            batch: as the collator made it.
        """
        if not self.needs.reference:
            return {}
        index = answer_index(batch)
        precomputed = self.needs.reference_logps if self.plan.logps is ReferenceMode.PRECOMPUTED else frozenset()
        present = frozenset(role for role in Role if index.rows[role])
        wanted = (self.needs.reference_logps - precomputed) | self.needs.reference_live
        references = {role: self._look_up(role, batch) for role in precomputed & present}
        if self.plan.looked_up:
            wanted = frozenset()
            for role in self.needs.reference_logits & present:
                known = references.get(role, _without_scores(role, batch))
                with accelerator.autocast():
                    references[role] = replace(known, logits=self._look_up_distributions(role, batch))
        live, logits = wanted & present, self.needs.reference_logits & present
        part = select_roles(batch, live) if live else None
        if self.sharded and wanted:
            # All ranks gather its weights at once: one without such rows makes the forward of the others, for nothing.
            logits = self.needs.reference_logits
            if part is None:
                part = without_answers(select_roles(batch, {min(present, key=index.rows.__getitem__)}))
        if part is not None:
            with self._as_reference(model) as (reference, head), evaluation_mode(reference), accelerator.autocast():
                forward, _ = score(
                    reference,
                    head,
                    part,
                    keep=dict.fromkeys(logits, self._keep),
                    capture=self._hidden_states,
                    likelihoods=Likelihoods.READ if self.needs.reference_logps - precomputed else Likelihoods.NONE,
                )
            for role in live:
                rows, looked_up = forward.rows(role), references.get(role)
                references[role] = rows if looked_up is None else replace(rows, logps=looked_up.logps)
        return references

    @property
    def _keep(self) -> LogitCache:
        """How its logits are had again: with its head, unless that is not there in the policy's forward."""
        return LogitCache.LOGITS if self._initial or (self.sharded and self._frozen is not None) else LogitCache.HIDDEN

    @contextlib.contextmanager
    def _as_reference(self, model: nn.Module) -> Iterator[tuple[nn.Module, OutputHead]]:
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
            yield adapted if plain else model, output_head(adapted)

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

    def _look_up(self, role: Role, batch: Batch) -> RowScores:
        index, stored = answer_index(batch), self._stored[role]
        rows, tokens = index.row_slice(role), index.token_slice(role)
        require_same_rows(role, index, self._lengths[role])
        starts = [self._starts[role][i] for i in index.row_numbers[rows]]
        places = [slice(start, start + n) for start, n in zip(starts, index.host_lengths[rows], strict=True)]
        logps = torch.cat([stored.logps[place] for place in places])
        return RowScores(logps, index.targets[tokens], index.lengths[rows], batch["source"][rows], batch["row"][rows])

    def _look_up_distributions(self, role: Role, batch: Batch) -> ReferenceLogits:
        """From the host, where a whole set's are kept, to the device."""
        index = answer_index(batch)
        require_same_rows(role, index, self._lengths[role])
        if self._hidden is not None:
            return self._hidden.logits(role, index)
        stored, starts = self._top_k[role]
        places = [slice(starts[i], starts[i + 1]) for i in index.row_numbers[index.row_slice(role)]]
        device = index.targets.device
        ids, logps = (
            torch.cat([values[place] for place in places]).to(device, non_blocking=True)
            for values in (stored.ids, stored.logps)
        )
        return TopKLogits(ids.long(), logps)


def _without_scores(role: Role, batch: Batch) -> RowScores:
    """The rows of a role, nothing known of them."""
    index = answer_index(batch)
    rows, tokens = index.row_slice(role), index.token_slice(role)
    nothing = torch.empty(0, device=index.targets.device)
    return RowScores(nothing, index.targets[tokens], index.lengths[rows], batch["source"][rows], batch["row"][rows])


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
        reload: loads the model again, where a deep copy is not possible because its parameters are split over ranks,
            or is not wanted because the copy is to be in 8 bits.
    """
    needs, layers = objective.needs, objective.reference_layers
    context = ReferenceContext(
        peft=isinstance(model, PeftModel),
        trained_adapter=has_trained_adapter(model),
        given=ref_model is not None,
        stream=stream,
        sharded=sharded,
        measured=measures_before(args),
    )
    plan = plan_reference(needs, args.reference, context)
    require_given(objective.terms, model if ref_model is None else ref_model, given=context.given, sharded=sharded)
    if ref_model is not None:
        require_alike(model, ref_model, needs)
    if args.reference_load_in_8bit:
        require_8bit(plan, context, reload)
        return Reference(plan, needs, layers, copy_model=lambda _: reload())  # type: ignore[misc]
    if ref_model is not None:
        return Reference(plan, needs, layers, copy_model=lambda _: ref_model, given=True, sharded=sharded)
    if not sharded:
        return Reference(plan, needs, layers)
    if ReferenceMode.FROZEN_COPY in plan.modes and reload is None:
        raise unavailable(
            "a model given by name or path, or ref_model, under ZeRO-3 and FSDP",
            "a loaded model, whose parameters are split over ranks and cannot be copied",
            "pass model='org/name', or load ref_model the same way",
        )
    return Reference(plan, needs, layers, copy_model=lambda _: reload(), sharded=True)  # type: ignore[misc]
