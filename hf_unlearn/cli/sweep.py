"""`hf-unlearn sweep`: many short runs of a recipe with other values, and the best of them run again for a report."""

import argparse

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "hf-unlearn sweep --config RECIPE --output_dir DIR\n"
        "                        (--runs N | --minutes M | --preset quick)\n"
        "                        [--ARGUMENT VALUE ...]"
    )
    parser.epilog = (
        "The recipe names model, rows and suite, and takes the arguments of hf-unlearn train. Runs are compared on "
        "one half of the rows, by a hash of each, and the best is reported on the other, beside the unchanged recipe, "
        "both with fresh seeds. The same command goes on after a kill; given again in another shell while it runs, "
        "both share the work. docs/sweep.md"
    )
    parser.add_argument("--config", metavar="RECIPE", help="YAML file, or a packaged recipe: harmful_lab, methods/npo")
    parser.add_argument("--task", metavar="TASK", help="task, where the recipe names none")
    parser.add_argument(
        "--method", metavar="NAME", help="losses and weights of this packaged recipe: npo, simnpo, ..."
    )
    parser.add_argument(
        "--space",
        metavar="FILE",
        help="YAML file of ranges, or rate_and_weights (default: the packaged space of the recipe's method)",
    )
    parser.add_argument("--runs", type=int, metavar="N", help="runs in all, those of earlier starts among them")
    parser.add_argument("--minutes", type=float, metavar="M", help="start no run after so many minutes")
    parser.add_argument(
        "--preset", metavar="NAME", help="quick: rate and weights alone, 6 runs of a third of the steps"
    )
    parser.add_argument("--objectives", nargs="+", metavar="NAME", help="of forgetting, utility, traceability (all)")
    parser.add_argument(
        "--sampler", default="tpe", metavar="NAME", help="tpe (default), nsga2 (from 100 runs), random"
    )
    parser.add_argument("--seed", metavar="N", help="of the compared runs and of what is drawn (the recipe's)")
    parser.add_argument(
        "--fresh_seeds", nargs="+", type=int, metavar="N", help="of the runs for the report (default: 1 2)"
    )
    parser.add_argument("--output_dir", metavar="DIR", help="folder of the sweep")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..errors import input_error
    from .train import task_of

    try:
        import optuna  # noqa: F401
    except ImportError:
        raise input_error(
            expected="optuna, which draws the values of a sweep",
            got="an environment without it",
            why="hf-unlearn sweep stands on it",
            fix="pip install 'hf-unlearn[sweep]'",
        ) from None
    from ..tasks.sweep.output import PLOT_FILE, sweep_data, sweep_words, write_trials
    from ..tasks.sweep.plan import SweepRequest, plan_sweep
    from ..tasks.sweep.plot import write_plot
    from ..tasks.sweep.run import run_sweep, tell_stderr

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _arguments(parser)
    _, words = parser.parse_known_args(args.given)
    for name in ("config", "task", "seed", "output_dir"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name}", value]
    task, rest = task_of(words)
    request = SweepRequest(
        task=task,
        words=rest,
        method=args.method,
        space=args.space,
        runs=args.runs,
        minutes=args.minutes,
        sampler=args.sampler,
        fresh_seeds=args.fresh_seeds,
        objectives=args.objectives,
        preset=args.preset,
    )
    plan = plan_sweep(request)
    sweep = run_sweep(plan, tell_stderr)
    write_trials(sweep, plan.folder)
    write_plot(sweep, plan.folder / PLOT_FILE)
    tell(args, sweep_words(sweep), sweep_data(sweep))


SWEEP = Verb(
    "search for a better recipe: many short runs, the best one run again on rows not chosen by",
    _arguments,
    _run,
    open=True,
)
