"""`hf-unlearn rerun`: does a run again from its folder, and says how near it came."""

import argparse
import dataclasses

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Rows, arguments, seed and number of processes are those of the run's command.json. Compared are weights, "
        "every figure beside its interval, versions, code and hardware. Exit status: 0 where weights are equal bit "
        "for bit, or every figure is within its interval; 1 where not; 2 where there is no run to do again. On a GPU, "
        "with other versions or in another number of processes bits may differ: --full_determinism true of the first "
        "run helps."
    )
    parser.add_argument("run", metavar="RUN", help="output folder of a run of hf-unlearn train or edit")
    parser.add_argument("--output_dir", metavar="FOLDER", help="folder of the new run (default: RUN-rerun)")
    parser.add_argument(
        "--resume_from_checkpoint", metavar="true", help="go on with a rerun that was interrupted, from its checkpoint"
    )
    parser.add_argument("--use_cpu", action="store_true", help="stay on the CPU where there is an accelerator")
    add_json(parser)


def _run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ..results.rerun_difference import compare_rerun, difference_words
    from ..tasks.rerun import rerun

    run = Path(args.run)
    output = Path(args.output_dir) if args.output_dir else run.absolute().with_name(f"{run.absolute().name}-rerun")
    more = [] if args.resume_from_checkpoint is None else ["--resume_from_checkpoint", args.resume_from_checkpoint]
    status = rerun(run, output, [*more, *(["--use_cpu"] if args.use_cpu else [])])
    if status:
        return status
    comparison = compare_rerun(run, output)
    data = {"run": str(run), "again": str(output), "same": comparison.same} | dataclasses.asdict(comparison)
    tell(args, f"\n{difference_words(comparison)}", data)
    return 0 if comparison.same else 1


RERUN = Verb("do a run again from its folder, and say how near it came", _arguments, _run)
