"""`hf-unlearn judge`: how far a language model as judge agrees with people."""

import argparse

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "FILE has the columns answer and label (1 where the answer is to be flagged), and where there are any "
        "reference (the row's own answer) and question. What is written goes into --judge_agreement of train, attack "
        "and evaluate."
    )
    parser.add_argument("--judge", required=True, metavar="MODEL", help="folder, Hub id, or name at the endpoint")
    parser.add_argument("--judge_purpose", default="fact", metavar="P", help="fact (default), behaviour or refusal")
    parser.add_argument("--judge_endpoint", metavar="URL", help="OpenAI-compatible server, to which rows are SENT")
    parser.add_argument("--judge_prompt", metavar="FILE", help="prompt of your own, with {answer} in it")
    parser.add_argument("--judge_cache", metavar="FILE", help="keep an endpoint's replies there")
    parser.add_argument("--judge_threshold", type=float, default=0.5, metavar="P", help="flags above it (default .5)")
    parser.add_argument("--labelled", required=True, metavar="FILE", help="answers that a person labelled")
    parser.add_argument("--output_file", metavar="FILE", help="write what was found there, as JSON")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..data.sources import load_rows
    from ..evaluation.judges.agreement import measure_agreement, save_agreement
    from ..tasks.answer_judge import judged_by_model

    args.judge_agreement = None  # it is what is measured here
    rows = load_rows(args.labelled)
    judge = judged_by_model(args)
    assert judge is not None  # --judge and --judge_purpose are there
    found = measure_agreement(judge, rows)
    if args.output_file is not None:
        save_agreement(found, args.output_file)
    kappa, accuracy = found.kappa, found.accuracy
    lines = [
        f"judge     {found.judge}",
        f"kappa     {kappa.value:.3f} [{kappa.low:.3f}, {kappa.high:.3f}] on {kappa.n} rows labelled by a person",
        f"accuracy  {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]",
    ]
    if found.unjudged:
        lines.append(f"not judged: {found.unjudged} rows, which are in neither figure")
    tell(args, "\n".join(lines), found.to_dict())


JUDGE = Verb("measure how far a language model as judge agrees with people", _arguments, _run)
