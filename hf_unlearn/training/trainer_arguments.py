"""Trainer's own arguments: set where the defaults of others do not serve, refused where pairs cannot honour them."""

from typing import Any

from transformers import TrainingArguments

from ..errors import input_error

# Kernels of Liger that no run of this package can use.
CROSS_ENTROPIES = ("cross_entropy", "fused_linear_cross_entropy")


def better_when_greater(metric: str) -> bool | None:
    """Which way this package's metrics are to go, None for others; Trainer would call the highest NLL the best."""
    kind = metric.rpartition("_")[2]
    if kind not in ("nll", "loss", "probability"):
        return None
    return (kind == "probability") != ("forget" in metric)


def complete_training_arguments(args: TrainingArguments) -> None:
    """Set what would otherwise be left to the defaults of other libraries, where those do not serve."""
    if args.activation_checkpointing_kwargs:
        # torch's own default where it is left out is the reentrant kind, which transformers' is not.
        args.activation_checkpointing_kwargs = {"use_reentrant": False} | args.activation_checkpointing_kwargs
    if args.use_liger_kernel:
        args.liger_kernel_config = _liger_kernels(args.liger_kernel_config or {})


def _liger_kernels(given: dict[str, bool]) -> dict[str, bool]:
    """Liger's kernels without its cross entropies: the losses read log-probs, and the model is never given labels."""
    without = dict.fromkeys(CROSS_ENTROPIES, False)
    asked = [name for name in without if given.get(name)]
    if asked:
        raise input_error(
            expected="liger_kernel_config without a cross entropy",
            got=f"{asked[0]}=True",
            why="the loss is made of the log-probs of answers, for which the output head has a way of its own",
            fix=f"leave {asked[0]} out; rms_norm, rope and swiglu are on by themselves",
        )
    return without | given


def refuse_training_arguments(args: TrainingArguments) -> None:
    """Raise for arguments that a paired batch cannot honour, and that would be dropped in silence."""

    def refuse(name: str, value: Any, instead: str, why: str) -> None:
        raise input_error(
            expected=f"{name}={instead} for unlearning",
            got=repr(value),
            why=why,
            fix=f"leave {name} out, or set it to {instead}",
        )

    if args.label_smoothing_factor != 0:
        why = "smoothed labels are not defined for the forget losses"
        refuse("label_smoothing_factor", args.label_smoothing_factor, "0.0", why)
    if args.remove_unused_columns:
        refuse("remove_unused_columns", True, "False", "it would drop the retain rows of every pair")
    if args.label_names not in (None, ["labels"]):
        refuse("label_names", args.label_names, "None", "paired batches carry their targets in `labels`")
    if not args.average_tokens_across_devices:
        why = "without it the gradient depends on how rows fall to the ranks"
        refuse("average_tokens_across_devices", False, "True", why)
    if args.accelerator_config.dispatch_batches:
        why = "it cuts one batch into ranks by row, and so parts forget rows from their retain rows"
        refuse("accelerator_config.dispatch_batches", True, "None", why)
