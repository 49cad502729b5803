"""`hf-unlearn attack`: what brings the forgotten back, from the saved model of a run."""

import argparse

from .command import Verb, add_json, tell

_LAUNCH = ("accelerate_config", "num_processes")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The rows, the model before unlearning, the retrained model and the rows never seen are those of the run. "
        "The report goes to attacks.json, card and plots of the run; an interrupted command goes on where it was."
    )
    parser.add_argument("run", metavar="RUN", help="output folder of a run of hf-unlearn train")
    tried = parser.add_mutually_exclusive_group()
    tried.add_argument("--suite", metavar="NAME", help="quick, standard or thorough (default: quick)")
    tried.add_argument("--attacks", metavar="NAME", nargs="+", help="attacks by name, or as JSON with their arguments")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="begin no further attack after so long")
    parser.add_argument(
        "--oracle", metavar="MODEL", nargs="+", help="models retrained without the forget rows, beside the run's own"
    )
    parser.add_argument("--unrelated", metavar="ROWS", help="file or dataset of other texts to relearn from")
    parser.add_argument("--rows", type=int, default=200, metavar="N", help="forget rows attacked (default: 200)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    parser.add_argument("--use_cpu", action="store_true", help="stay on the CPU where there is an accelerator")
    launch = parser.add_argument_group("several processes (accelerate launch), which share the attacks")
    launch.add_argument("--accelerate_config", metavar="NAME", help="ddp, or a YAML file of accelerate")
    launch.add_argument("--num_processes", metavar="N", help="accelerate launch's --num_processes")
    add_json(parser)


def _run(args: argparse.Namespace) -> int | None:
    launch = {name: value for name in _LAUNCH if (value := getattr(args, name)) is not None}
    if launch:
        from ..training.launch.start import has_accelerator, launch_processes

        # Without it accelerate would start processes that do not know of each other.
        on_cpu = [] if args.use_cpu or has_accelerator() else ["--use_cpu"]
        return launch_processes(launch, ["attack", *_without_launch(args.given), *on_cpu])
    from accelerate import PartialState

    from ..results.answers_table import answers_table
    from ..results.attack_table import attack_table
    from ..results.record import load_record
    from ..results.schema import as_json
    from ..results.verdict import verdict
    from ..tasks import make_task
    from ..tasks.attack_saved import AttackOptions, attack_saved
    from ..tasks.command_file import read_command

    name, parsed = read_command(args.run, *(["--use_cpu"] if args.use_cpu else []))
    options = AttackOptions(
        attacks=_spec(args),
        budget=args.budget,
        oracles=tuple(args.oracle or ()),
        unrelated=args.unrelated,
        rows=args.rows,
        seed=args.seed,
    )
    task = make_task(name, parsed)
    try:
        report = attack_saved(task, parsed, options)
    finally:
        if task.cache is not None:
            task.cache.close()
    if PartialState().is_main_process:
        answers = verdict(load_record(args.run)).answers
        text = f"{attack_table(report)}\n\n{answers_table(answers)}"
        tell(args, text, report.to_dict() | {"answers": as_json(answers)})
    PartialState().destroy_process_group()
    return None


def _spec(args: argparse.Namespace) -> object:
    """What `hf_unlearn.attacks.attack` takes: the name of a suite, or a list of attacks."""
    from ..attacks.suites import ATTACK_SUITES
    from ..errors import require_choice
    from ..training.method_specs import parse_text

    if args.attacks is None:
        require_choice("--suite", args.suite or "quick", ATTACK_SUITES)
        return args.suite or "quick"
    specs = [parse_text(word) for word in args.attacks]
    return [one for spec in specs for one in (spec if isinstance(spec, list) else [spec])]


def _without_launch(given: list[str]) -> list[str]:
    """The words of the command without those for accelerate."""
    kept, words = [], iter(given)
    for word in words:
        name, is_whole, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in _LAUNCH:
            if not is_whole:
                next(words, None)
        else:
            kept.append(word)
    return kept


ATTACK = Verb("try to bring the forgotten back, beside controls", _arguments, _run)
