"""What a trainer is built from: arguments, method, tokenised rows and model, checked against each other."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from peft import PeftConfig
from torch import nn
from transformers import set_seed

from ..data.batch import IndexingCollator
from ..data.collator import DataCollatorForUnlearning
from ..data.prepare import RowOptions
from ..data.token_batches import TokenLimit
from ..model.sharding import share_weights
from .baseline import require_measurable
from .checks import pads_left, paired_collator, require_tokenizer
from .config import UnlearningConfig, row_cache_of
from .distributed_setup import DistributedSetup
from .method_specs import LossSpec
from .methods import Methods
from .model_setup import check_fit, load_model, prepare_model
from .objective import Objective, build_objective
from .padding_free import PairsWithoutPadding, require_own_collator, require_padding_free
from .probing import longest_line
from .reference.reference import Reference, build_reference
from .sampling import order_seed
from .train_sets import RunSets, build_train_sets, require_full_batches
from .trials import TUNABLE, arguments_at_start, retuned, trial_arguments


@dataclass(frozen=True)
class PreparedRun:
    """A run before Trainer takes over; nothing here changes after it was made.

    Attributes:
        args: of the run.
        methods: losses, step wrappers and weighting.
        objective: of the losses.
        options: how rows become tokens.
        sets: all rows, tokenised, checked and paired.
        collator: the package's, which pads.
        data_collator: Trainer's; the user's own as it was given, or the package's.
        collate: the same for pairs: its batches have roles.
        left_padding: name of the user's collator, where it pads on the left.
        model_name: what the model is loaded by, None for one in memory.
        peft_config: of the adapter to add, or None.
        ref_model: given by the user, or None.
        losses: the trainer's own `forget_loss` and `retain_loss`.
        args_at_start: the arguments before a search or the user changes them.
    """

    args: UnlearningConfig
    methods: Methods
    objective: Objective
    options: RowOptions
    sets: RunSets
    collator: DataCollatorForUnlearning
    data_collator: Callable[..., Any]
    collate: Callable[..., Any]
    left_padding: str | None
    model_name: str | None
    peft_config: PeftConfig | None
    ref_model: nn.Module | None
    losses: tuple[LossSpec, LossSpec]
    args_at_start: Mapping[str, Any]

    @classmethod
    def prepare(
        cls,
        args: UnlearningConfig,
        losses: tuple[LossSpec, LossSpec],
        train_dataset: Any,
        eval_dataset: Any,
        processing_class: Any,
        data_collator: Callable[..., Any] | None,
        model: Any,
        peft_config: PeftConfig | None,
        ref_model: nn.Module | None,
    ) -> "PreparedRun":
        """Everything but the model, from the trainer's own arguments, in the order in which mistakes are cheapest.

        Raises:
            ValueError: data or arguments that would not unlearn what was asked.
        """
        model_name = model if isinstance(model, str) else None
        args_at_start = arguments_at_start(args)
        methods = Methods.resolve(args, *losses)
        require_own_collator(args, methods.attacks, data_collator)
        objective = build_objective(methods, args)
        tokenizer = require_tokenizer(processing_class, model_name, args)
        cache, given = row_cache_of(args), (args.max_length, args.template, args.dataset_num_proc)
        kwargs = args.template_variables
        options = RowOptions(tokenizer, *given, cache, chat_template_kwargs=kwargs, labels_from=data_collator)
        with cache.closed_on_error():
            sets = build_train_sets(
                train_dataset, eval_dataset, objective, methods.wrappers, args, options, model_name
            )
        own = DataCollatorForUnlearning(tokenizer.pad_token_id, args.pad_to_multiple_of)
        collate: Callable[..., Any] = own
        left_padding = None
        if data_collator is not None:
            collate = paired_collator(data_collator, sets.paired)
            left_padding = type(data_collator).__name__ if pads_left(collate, sets.paired) else None
        return cls(
            args=args,
            methods=methods,
            objective=objective,
            options=options,
            sets=sets,
            collator=own,
            data_collator=data_collator or collate,
            collate=collate,
            left_padding=left_padding,
            model_name=model_name,
            peft_config=peft_config,
            ref_model=ref_model,
            losses=losses,
            args_at_start=args_at_start,
        )

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """What Trainer is built with, beside the model and what the user's own arguments are."""
        return dict(
            args=self.args,
            data_collator=self.data_collator,
            train_dataset=self.sets.paired,
            eval_dataset=self.sets.evaluation,
            processing_class=self.options.tokenizer,
        )

    @property
    def pads_itself(self) -> bool:
        """Whether the package's own collator makes the batches, which can leave the padding out."""
        return self.collate is self.collator and not self.methods.attacks

    def collator_of(self, data_collator: Callable[..., Any], *, in_one_line: bool) -> IndexingCollator:
        """What makes the batches of a loader: the trainer's collator, with roles and index.

        Args:
            data_collator: of the trainer as it is now; the user may have set another one.
            in_one_line: whether the rows of a training batch follow each other without padding.
        """
        if data_collator is not self.data_collator:
            require_own_collator(self.args, self.methods.attacks, data_collator)
            return IndexingCollator(paired_collator(data_collator, self.sets.paired))
        collate = PairsWithoutPadding(self.collator) if in_one_line else self.collate
        return IndexingCollator(collate, token_limit(self.args, padded=not in_one_line))

    def close(self) -> None:
        """Let go of the folder of rows, which is removed where nobody else uses it."""
        if self.options.cache is not None:
            self.options.cache.close()

    def prepare_model(self, model: Any) -> Any:
        """A model as Trainer takes it: loaded where it is a name, with its adapter, checked against the rows."""
        model = load_model(model, self.args) if isinstance(model, str) else model
        set_seed(self.args.seed)  # adapters start from random weights
        model = prepare_model(model, self.args, self.peft_config, whole=self.objective.needs.logps)
        check_fit(model, self.options.tokenizer, self.args, self.sets.longest)
        if self.args.padding_free:
            require_padding_free(model, longest_line(self.objective, self.args, self.sets.longest))
        return model

    def reference(self, model: nn.Module, distributed: DistributedSetup) -> Reference:
        """How the model before unlearning is known to the losses; not yet bound to the model, one for all ranks."""
        if distributed.processes > 1 and not distributed.sharded:
            for given in (model,) if self.ref_model is None else (model, self.ref_model):
                share_weights(given, self.args.device)
        reload = None
        if self.model_name is not None:
            in_8bit = self.args.reference_load_in_8bit
            reload = partial(load_model, self.model_name, self.args, in_8bit=in_8bit)
        return build_reference(
            self.objective,
            self.args,
            model,
            stream=self.sets.train is not None and self.sets.train.stream,
            sharded=distributed.sharded,
            ref_model=self.ref_model,
            reload=reload,
        )

    def trial_arguments(self, trial: Any) -> AbstractContextManager[None]:
        """Around Trainer's own setup of a trial: its proposals come into `args` as they are."""
        return trial_arguments(self.args, self.args_at_start, trial)

    def retuned(self, objective: Objective) -> tuple[Methods, Objective]:
        """Method and objective with the loss arguments and weights that a trial or the user has set on `args`.

        The order of the rows follows the seed that is set there.

        Args:
            objective: of the run before.

        Raises:
            ValueError: what was set can have no effect any more, or one batch would hold a row twice.
        """
        methods = Methods.resolve(self.args, *self.losses)
        given = {name for name, spec in zip(TUNABLE, self.losses, strict=False) if spec is not None}
        objective = retuned(objective, methods, self.args, self.args_at_start, given)
        if self.sets.train is not None:
            require_full_batches(self.sets.train, objective, self.args)
        if self.sets.paired is not None:
            self.sets.paired.reseed(order_seed(self.args))
        return methods, objective

    def require_levels(self) -> None:
        """Raise when a level is to be measured on rows that are not there."""
        if self.sets.train is not None:
            require_measurable(self.args, self.sets.train.holdout)


def token_limit(args: UnlearningConfig, *, padded: bool) -> TokenLimit | None:
    """How a micro-batch is cut by `max_tokens_per_batch`, None for not at all."""
    return None if args.max_tokens_per_batch is None else TokenLimit(args.max_tokens_per_batch, padded=padded)
