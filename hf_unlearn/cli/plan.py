"""`hf-unlearn plan`: calculates the GPU memory of a run, and the cheapest packaged config that it fits under."""

import argparse
from collections.abc import Sequence
from typing import Any

from .argument_help import add_own_arguments
from .command import CommandParser, Verb, add_json, tell, words_of_task

_OWN = ("num_gpus", "num_machines", "gpu_memory", "host_memory", "reserve", "answer_share", "accelerate_config")
_FLAGS = ("json", "list_shapes")


# What the short help lists of the run's arguments.
_MOST_USED = {
    "forget_loss": "npo, ... (hf-unlearn methods)",
    "retain_loss": "nll, kl, ...",
    "reference": "auto, precomputed, adapter, copy, cached or topk",
    "use_peft": "train a LoRA adapter (--lora_r, ...)",
    "dtype": "of the weights: float32, bfloat16, ...",
    "bf16": "mixed precision",
    "max_length": "tokens of a row",
    "per_device_train_batch_size": "forget rows a step and device",
    "activation_checkpointing": "compute activations twice, keep few",
    "optim": "adamw_torch_fused, sophia, ...",
}


def _arguments(parser: CommandParser) -> None:
    parser.usage = (
        "hf-unlearn plan --model_name_or_path MODEL [--config RECIPE]\n"
        "                       [--num_gpus N] [--gpu_memory GIB] [--ARGUMENT VALUE ...]"
    )
    parser.epilog = (
        "The other arguments are those of hf-unlearn train, from a recipe or the command line. No weights are loaded: "
        "of a model on the Hub its config.json alone is read."
    )
    parser.add_argument("--config", metavar="RECIPE", help="YAML file, or packaged recipe, to be planned")
    parser.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="known shape, folder, config.json or Hub id",
    )
    parser.add_argument("--list_shapes", action="store_true", help="list the known shapes and end")
    hardware = parser.add_argument_group("hardware")
    hardware.add_argument("--num_gpus", type=int, default=1, metavar="N", help="GPUs in all (default: 1)")
    hardware.add_argument("--num_machines", type=int, default=1, metavar="N", help="machines (default: 1)")
    hardware.add_argument(
        "--gpu_memory", type=float, default=80.0, metavar="GIB", help="memory of a GPU (default: 80)"
    )
    hardware.add_argument(
        "--host_memory", type=float, metavar="GIB", help="memory of a machine that offloading may take"
    )
    hardware.add_argument(
        "--reserve",
        type=float,
        default=0.08,
        metavar="SHARE",
        help="share of a GPU left to CUDA (default: 0.08)",
    )
    parser.add_argument(
        "--answer_share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of a row's tokens that are answer (default: 1, the most that it can be)",
    )
    parser.add_argument("--accelerate_config", metavar="NAME", help="look at this config alone")
    add_json(parser)
    parser.seldom |= {"answer_share", "num_machines", "reserve"}
    parser.add_help_all()
    add_own_arguments(parser, _MOST_USED)


def _run(args: argparse.Namespace) -> None:
    from ..planning import KNOWN_SHAPES, Hardware, make_plan, make_request, plan_to_data, render_plan

    if args.list_shapes:
        tell(args, "\n".join(KNOWN_SHAPES), list(KNOWN_SHAPES))
        return
    hardware = Hardware(args.num_gpus, args.num_machines, args.gpu_memory, args.host_memory, args.reserve)
    only = None
    if args.accelerate_config is not None:
        from ..planning.strategies import read_strategy
        from ..training.launch.start import find_config

        only = read_strategy(find_config(args.accelerate_config))
    plan = make_plan(make_request(_values(words_of_task(args.given, _OWN, _FLAGS)), args.answer_share), hardware, only)
    tell(args, render_plan(plan), plan_to_data(plan))


def _values(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of the run by name: a recipe's and the command line's, which needs no task."""
    from ..plugins import load_plugins
    from ..tasks import check_task
    from ..tasks.arguments import RunArguments, check_arguments
    from .train import plugins_of, task_of

    own = (*_OWN, *_FLAGS)
    if any(word.partition("=")[0] in ("--config", "--task") for word in words):
        task, rest = task_of(words)
        return check_task(task, rest, own)
    load_plugins(plugins_of(words))
    return check_arguments("custom", RunArguments, None, words, own)


PLAN = Verb(
    "memory per GPU of a run, and the cheapest config that fits",
    _arguments,
    _run,
    open=True,
)
