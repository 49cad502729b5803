"""`UnlearningConfig`: the arguments of a run. A loss, step wrapper or weighting has arguments of its own."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import IntervalStrategy, TrainingArguments
from transformers.training_args import OptimizerNames
from transformers.utils import logging

from ..data.chat_template import check_template_kwargs
from ..data.checks import check_template
from ..data.row_cache import ROW_CACHE, RowCache
from ..data.walks import check_ratio
from ..errors import require_choice
from ..losses import Loss
from ..optimizers.named import OPTIMIZERS, named_optimizer
from ..plugins import load_plugins
from ..steps import StepWrapper
from ..steps.weighting import Weighting
from .argument_ranges import check_types_and_ranges, name_or_number, require_anchor, require_bound_sides
from .launch.verify import require_launched, restored_environment
from .levels.setting import levels_setting
from .method_specs import parse_text, spec_to_data
from .methods import Methods
from .optimizer_arguments import require_optimizer
from .trainer_arguments import better_when_greater, complete_training_arguments, refuse_training_arguments

logger = logging.get_logger(__name__)

BOUND_NAMES = ("log_vocab", "holdout", "holdout_quantiles", "levels")
_METHOD_ARGUMENTS = ("forget_loss", "retain_loss", "anchor_loss", "weighting", "step_wrappers")
REFERENCES = ("auto", "precomputed", "adapter", "copy", "cached", "topk")


@dataclass
class UnlearningConfig(TrainingArguments):
    """`TrainingArguments`, and how to unlearn.

    Every argument of `TrainingArguments` works or is refused with a reason. `logging_steps` is 10 by default (500 in
    Trainer), as the stop rules watch the log; `eval_strategy="steps"` without `eval_steps` evaluates as often.
    `resume_from_checkpoint` is where `train()` goes on from unless it is told otherwise. `optim` takes "sophia" too,
    its arguments in `optim_args` ("rho=0.04,beta2=0.95").

    Args:
        forget_loss: a name ("npo"), a mapping ({"name": "npo", "beta": 0.1}), a Loss object, or a list of these, each
            with a `weight`. JSON on a command line.
        retain_loss: likewise; "none" trains on forget rows alone.
        forget_weight: weight of the forget side.
        retain_weight: weight of the retain side.
        weighting: how `retain_weight` is set over the run: "fixed", or "primal_dual" (a name, a mapping or an object),
            which starts from it.
        step_wrappers: what wraps a gradient step: names, mappings or objects ("sam", {"name": "sam", "rho": 0.05}), or
            a list of them. JSON on a command line.
        retain_ratio: retain rows per forget row; the retain set is walked without replacement before it repeats.
        anchor_loss: what holds rows of `train_dataset["holdout"]`, which the model has never seen, where they are:
            "kl", a mapping, a Loss object, a list of these, or "none".
        anchor_weight: weight of these terms; no weighting moves it.
        anchor_ratio: holdout rows per forget row, walked as the retain rows are.
        max_length: rows are cut to so many tokens from the right (and reported); None for no limit.
        template: text of a row with string fields, e.g. "### Question: {prompt}\\n ### Answer: {completion}". None:
            the tokenizer's chat template, or prompt and completion joined where it has none.
        chat_template_kwargs: variables for the tokenizer's chat template, e.g. {"enable_thinking": False}; a row may
            have its own in a column of this name, which come first. A template that asks for today's date is given a
            fixed one, or {"strftime_now": "2026-11-28"}.
        forget_nll_bound: nats per token at which a forget row stops pushing. "log_vocab" (the level of a uniform
            guess), "holdout" (the mean that the model before unlearning gives to `train_dataset["holdout"]`),
            "holdout_quantiles" (each forget row gets the holdout quantile of its rank), "levels" (row i at its own
            level), a number, or None.
        forget_bound_sides: "above": rows past the bound give no gradient; "both": they are pulled back to it, too
            (component "forget/pull_back"), whatever the forget loss.
        levels: what a model that never saw the forget rows would give each of them, estimated before the first step:
            "ngram" (from n-grams of the retain rows), "holdout" (quantiles of unseen rows), the name
            or path of a causal language model that never saw them, a mapping of forget row to nats per token, or
            None. All but the mapping are calibrated on one half of `train_dataset["holdout"]` (docs/levels.md).
        recalibrate_steps: estimate the levels again every so many steps, from what the model as it then is gives to
            unseen rows that the anchor does not hold; None for once (docs/levels.md).
        reference: "auto" (cached log-probs where they suffice, else the adapter switched off, else a frozen copy),
            "precomputed", "adapter", "copy"; or, of the distributions that a loss compares with, what costs no forward
            in a step: "cached" (the hidden states before the output head, on disk; exact) or "topk" (the likeliest
            tokens alone; approximate). See docs/scaling.md.
        reference_load_in_8bit: load the frozen copy through bitsandbytes in 8 bits; the model must be given by name.
        reference_top_k: tokens of each distribution that "topk" keeps.
        reference_cache_dir: folder of what is cached of the reference; None for the Hugging Face cache (log-probs) and
            the folder of the run's rows ("cached" and "topk", from which rows could be read).
        stop_forget_nll: stop when the forget NLL reaches a number, or "holdout" (the NLL of `train_dataset["holdout"]`
            before unlearning).
        stop_at_level: stop when half of the forget rows are within so many nats per token of their `levels` (.3, say):
            the median of |nll_i - level_i|, each at the row's last training step, logged as `level_distance`.
        stop_retain_nll_increase: stop when the retain NLL has risen by more than so many nats per token.
        stop_on_nonfinite: stop before a step whose loss or gradient is not finite; the weights stay as they were.
        disable_dropout: set the dropouts of the model's modules to zero, so that policy and reference differ by what
            was learnt alone.
        model_init_kwargs: for `from_pretrained`, when `model` is a name or a path.
        pad_to_multiple_of: round the padded length up.
        padding_free: rows of a training batch follow each other without padding, kept apart by their positions. With
            flash attention or flex attention (`model_init_kwargs={"attn_implementation": ...}`) only real tokens cost
            anything; the others mask out a square of all tokens of the batch.
        auto_padding_free: set `padding_free` by what the first micro-batch takes with padding and without. A model
            that cannot have rows in one line has them padded.
        max_tokens_per_batch: most tokens of one forward and backward, padding included. A micro-batch with more is
            taken in several, each of rows of like length: less padding and less memory, and the same gradient.
        dataset_num_proc: processes that tokenise.
        row_cache_dir: folder for rows and token ids while the run needs them; None for `output_dir`/.rows.
        keep_cache: keep the rows and token ids that a run puts there, where only its owner can look; they are removed
            when it ends otherwise, and those of a killed run at the next start.
        plugins: modules of other packages, or Python files of your own ("my_loss.py"), that add losses and the like
            (docs/plugins.md); those of installed packages that declare themselves need not be named.

    Raises:
        ValueError: unknown losses, arguments or choices (with the nearest names), and `TrainingArguments` that
            unlearning cannot honour.
    """

    # HfArgumentParser takes the second type of a union with None for the command line: text, decoded in __post_init__.
    forget_loss: dict[str, Any] | str | Loss | list[Any] | None = field(
        default="npo", metadata={"help": "Forget loss: a name, or JSON for arguments and lists."}
    )
    retain_loss: dict[str, Any] | str | Loss | list[Any] | None = field(
        default="nll", metadata={"help": "Retain loss: a name ('none' for no retain side), or JSON."}
    )
    forget_weight: float = field(default=1.0, metadata={"help": "Weight of the forget side."})
    retain_weight: float = field(default=1.0, metadata={"help": "Weight of the retain side."})
    weighting: dict[str, Any] | str | Weighting | None = field(
        default="fixed", metadata={"help": "How the retain weight is set: fixed, or primal_dual (a name, or JSON)."}
    )
    step_wrappers: dict[str, Any] | str | StepWrapper | list[Any] | None = field(
        default=None, metadata={"help": "What wraps a step: sam, surgery, ... (a name, or JSON for several)."}
    )
    retain_ratio: float = field(default=1.0, metadata={"help": "Retain rows per forget row."})
    anchor_loss: dict[str, Any] | str | Loss | list[Any] | None = field(
        default="none", metadata={"help": "Loss that holds holdout rows: kl (a name, or JSON), or none."}
    )
    anchor_weight: float = field(default=0.5, metadata={"help": "Weight of the anchor loss."})
    anchor_ratio: float = field(default=0.25, metadata={"help": "Holdout rows per forget row, for anchor_loss."})
    max_length: int | None = field(default=1024, metadata={"help": "Tokens at which rows are cut, from the right."})
    template: str | None = field(
        default=None,
        metadata={"help": "Text of a row, with {prompt} and {completion}; default: chat template, or plain."},
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Variables for the chat template, as JSON: {"enable_thinking": false}.'}
    )
    forget_nll_bound: float | str | None = field(
        default="log_vocab",
        metadata={
            "help": "Where a forget row stops pushing: log_vocab, holdout, holdout_quantiles, levels, a number, none."
        },
    )
    forget_bound_sides: str = field(
        default="above",
        metadata={"help": "Rows past the bound: above (they give no gradient), or both (they come back)."},
    )
    levels: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Levels of unseen rows: ngram, holdout, a model, JSON of row to nats, none."},
    )
    recalibrate_steps: int | None = field(
        default=None, metadata={"help": "Steps after which levels are estimated again, on the model as it then is."}
    )
    reference: str = field(default="auto", metadata={"help": "Reference: auto, precomputed, adapter, copy or topk."})
    reference_load_in_8bit: bool = field(
        default=False, metadata={"help": "Load the frozen copy in 8 bits (bitsandbytes)."}
    )
    reference_top_k: int = field(default=64, metadata={"help": "Tokens of a distribution that reference=topk keeps."})
    reference_cache_dir: str | None = field(default=None, metadata={"help": "Folder of cached reference log-probs."})
    stop_forget_nll: float | str | None = field(
        default=None, metadata={"help": "Stop when the forget NLL reaches a number, or the holdout's ('holdout')."}
    )
    stop_at_level: float | None = field(
        default=None, metadata={"help": "Stop when half of the forget rows are so near to their levels."}
    )
    stop_retain_nll_increase: float | None = field(
        default=None, metadata={"help": "Stop when the retain NLL has risen by more than this."}
    )
    stop_on_nonfinite: bool = field(default=True, metadata={"help": "Stop before a step that is not finite."})
    disable_dropout: bool = field(default=True, metadata={"help": "Set the dropouts of the model's modules to zero."})
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Arguments of from_pretrained, as JSON, when the model is a name."}
    )
    pad_to_multiple_of: int | None = field(default=None, metadata={"help": "Round the padded length up."})
    padding_free: bool = field(default=False, metadata={"help": "Train on rows in one line, without padding."})
    auto_padding_free: bool = field(default=False, metadata={"help": "Time both on the first micro-batch and choose."})
    max_tokens_per_batch: int | None = field(
        default=None, metadata={"help": "Tokens of one forward; a micro-batch with more is taken in several."}
    )
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes that tokenise."})
    row_cache_dir: str | None = field(
        default=None, metadata={"help": "Folder of rows and token ids in a run; none: output_dir/.rows."}
    )
    keep_cache: bool = field(default=False, metadata={"help": "Keep rows and token ids when the run ends."})
    plugins: list[str] | None = field(
        default=None, metadata={"help": "Modules or files (my_loss.py) that add losses and the like."}
    )

    # Defaults of TrainingArguments that would hide or break unlearning.
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: paired rows have more columns."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "False shows divergence in the logs."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between logs (Trainer's default is 500)."})
    # A plain string, because the command line would offer the members of Trainer's enumeration alone.
    optim: str = field(
        default=TrainingArguments.optim, metadata={"help": "The optimizer: one of Trainer's names, or sophia."}
    )
    greater_is_better: bool | None = field(
        default=None,
        metadata={"help": "Of metric_for_best_model; by default a low NLL is good, but a forget set's is bad."},
    )

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs", "chat_template_kwargs"]

    @restored_environment()
    def __post_init__(self) -> None:
        check_types_and_ranges(self)  # before Trainer calculates with them
        load_plugins(self.plugins)
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = better_when_greater(self.metric_for_best_model)
        requested = self.optim
        require_choice("optim", requested, (*(name.value for name in OptimizerNames), *OPTIMIZERS))
        if requested in OPTIMIZERS:
            self.optim = "adamw_torch"  # TrainingArguments knows no other names than its own
        if self.eval_strategy == IntervalStrategy.STEPS and not self.eval_steps:
            logger.warning_once(f"eval_steps is not set: it evaluates when it logs, every {self.logging_steps} steps.")
        super().__post_init__()
        require_launched(self)
        if not self.should_log and self.log_level_replica == "warning":  # Trainer's default: every rank warns
            logging.get_logger("hf_unlearn").setLevel(logging.ERROR)
        complete_training_arguments(self)
        if requested in OPTIMIZERS:
            self.optim = requested
        named_optimizer(self)
        # From pinned memory a batch is on its way while the host goes on.
        self.accelerator_config.non_blocking = self.accelerator_config.non_blocking or self.dataloader_pin_memory
        # A stream's batches would be cut into ranks by row, which parts forget rows from their retain rows.
        self.accelerator_config.dispatch_batches = bool(self.accelerator_config.dispatch_batches)
        for name in _METHOD_ARGUMENTS:
            setattr(self, name, parse_text(getattr(self, name)))
        Methods.resolve(self)  # unknown names and arguments are refused here; the trainer resolves for itself
        check_template_kwargs(self.chat_template_kwargs)
        check_ratio("retain_ratio", self.retain_ratio)
        check_ratio("anchor_ratio", self.anchor_ratio)
        require_anchor(self)
        self.forget_nll_bound = name_or_number("forget_nll_bound", self.forget_nll_bound, BOUND_NAMES)
        self.levels = levels_setting(self.levels, self.forget_nll_bound)
        self.stop_forget_nll = name_or_number("stop_forget_nll", self.stop_forget_nll, ("holdout",))
        require_bound_sides(self.forget_bound_sides, self.forget_nll_bound)
        check_template(self.template)
        require_choice("reference", self.reference, REFERENCES)
        require_optimizer(self)
        refuse_training_arguments(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds, as training_args.bin is one: all but the token, which no file of a run may hold."""
        return {**vars(self), "hub_token": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "UnlearningConfig":
        """A copy in memory keeps the token, which a copy by way of a pickle's state would lose."""
        copied = copy.copy(self)
        memo[id(self)] = copied
        copied.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return copied

    def __copy__(self) -> "UnlearningConfig":
        copied = type(self).__new__(type(self))
        copied.__dict__.update(vars(self))
        return copied

    @property
    def template_variables(self) -> dict[str, Any] | None:
        """`chat_template_kwargs` as a mapping."""
        assert not isinstance(self.chat_template_kwargs, str)  # as below
        return self.chat_template_kwargs

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """`model_init_kwargs` as a mapping."""
        assert not isinstance(self.model_init_kwargs, str)  # TrainingArguments has decoded the JSON of a command line
        return dict(self.model_init_kwargs or {})

    def to_dict(self) -> dict[str, Any]:
        """As `TrainingArguments.to_dict`, with losses and the like as mappings."""
        values = super().to_dict()
        for name in _METHOD_ARGUMENTS:
            values[name] = spec_to_data(getattr(self, name))
        return values


def row_cache_of(args: UnlearningConfig) -> RowCache:
    """Where a run keeps its rows and their token ids."""
    folder = Path(args.output_dir, ROW_CACHE) if args.row_cache_dir is None else Path(args.row_cache_dir)
    return RowCache(folder, keep=args.keep_cache)
