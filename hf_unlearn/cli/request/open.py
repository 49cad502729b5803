"""`hf-unlearn request open`: makes a ledger, with the arguments that all of its runs have in common."""

import argparse

from ..command import Verb, add_json, tell, words_of_task


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "hf-unlearn request open LEDGER [--config RECIPE] [--policy NAME]\n"
        "                               [--ARGUMENT VALUE ...]"
    )
    parser.epilog = (
        "The arguments are those of hf-unlearn train --task deletion without the rows to forget: "
        "--model_name_or_path, --retain_dataset, --holdout_dataset, the method. Without any it is the lab's people. "
        "They lie in the ledger's command.json, which only you can read."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="new folder of the ledger")
    parser.add_argument("--config", metavar="RECIPE", help="YAML file or packaged recipe (default: deletion_lab)")
    parser.add_argument("--policy", default="standard", metavar="NAME", help="of requests that name none (standard)")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...tasks.request_batches import open_ledger

    words = [word for word in words_of_task(args.given, ("policy",)) if word != args.ledger]
    ledger = open_ledger(args.ledger, words, args.policy)
    opened = ledger.state().opened
    text = f"Opened the ledger {args.ledger}, policy {args.policy}.\nhf-unlearn request add {args.ledger} --rows FILE"
    tell(args, text, {"ledger": args.ledger, **opened})


OPEN = Verb("make a ledger: model, rows to keep and method that its runs have in common", _arguments, _run, True)
