"""`hf-unlearn request plan`: in which way the open requests are to be carried out, and why."""

import argparse
import dataclasses

from ..command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Ways, the cheapest first: nothing, drop_cohort, replay, checkpoint, calibrated. The plan becomes an entry "
        "of the ledger; nothing is carried out."
    )
    parser.add_argument("ledger", metavar="LEDGER", help="folder of the ledger")
    parser.add_argument("--requests", nargs="+", metavar="ID", help="open requests (default: all of them)")
    parser.add_argument(
        "--way", nargs="+", metavar="WAY", help="a way for all of them, or ID=WAY; refused where it is not sufficient"
    )
    parser.add_argument("--log", metavar="FOLDER", help="log of the training (UnlearnableCallback, train_cohorts)")
    parser.add_argument("--checkpoint", metavar="MODEL", help="a model from before the rows were trained on")
    parser.add_argument(
        "--max_replay", type=float, default=1.0, metavar="SHARE", help="of the training, at most (default: 1)"
    )
    parser.add_argument(
        "--together", action="store_true", help="let all go along in a calibrated batch, where there is one"
    )
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ...requests import Ledger
    from ...requests.plan import Evidence, grouped, plan, plan_words
    from ...requests.state import OPEN, PLANNED

    ledger = Ledger(args.ledger)
    with ledger.locked():
        evidence = Evidence(checkpoint=args.checkpoint)
        if args.log is not None:
            from ...requests.log_evidence import evidence_of_log
            from ...requests.rows_store import RowsStore
            from ...unlearnable import read_log

            store = RowsStore(ledger)
            rows = [row for name in ledger.state().requests for row in store.rows(name)]
            evidence = evidence_of_log(read_log(args.log), rows, ledger.salt, args.checkpoint)
        state = ledger.state()
        names = args.requests or [request.id for request in state.with_status(OPEN)]
        plans = plan(state, names, evidence, asked_ways(args.way, names), args.max_replay)
        batches = grouped(plans, args.together)
        for batch in batches:
            ledger.append(PLANNED, batch.entry())
    tell(args, plan_words(batches), [dataclasses.asdict(batch) for batch in batches])


def asked_ways(words: list[str] | None, names: list[str]) -> dict[str, str]:
    """What `--way` says: the way of each request that it speaks of, `ID=WAY` before one for all."""
    ways: dict[str, str] = {}
    for word in sorted(words or [], key=lambda word: "=" in word):
        name, is_for_one, way = word.rpartition("=")
        ways |= {name: way} if is_for_one else dict.fromkeys(names, word)
    return ways


PLAN = Verb("choose the cheapest sufficient way for each open request, and say why", _arguments, _run)
