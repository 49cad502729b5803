"""`hf-unlearn gate`: whether a run may be released, by what attacks got out of it and a policy."""

import argparse
import dataclasses

from .command import Verb, add_json, tell

_WAYS = ("adapter", "merged", "quantized", "api_logprobs", "api_text")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Each way of release lets attackers in: adapter (beside its base) all classes; merged and quantized those who "
        "have the weights; api_logprobs those who see probabilities; api_text those who ask. What they got is read "
        "from results.json and attacks.json (hf-unlearn attack). Exit status: 0 every way is released, 1 one is "
        "refused, 2 it cannot be decided."
    )
    parser.add_argument("run", metavar="RUN", help="output folder of a run that was attacked")
    parser.add_argument(
        "--policy", default="standard", metavar="FILE", help="YAML file or packaged policy (default: standard)"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=_WAYS, metavar="WAY", help="ways of release (default: the policy's)"
    )
    add_json(parser)


def _run(args: argparse.Namespace) -> int:
    from ..results.gate import gate, gate_table, read_policy
    from ..results.schema import as_json

    decided = gate(args.run, read_policy(args.policy), args.ways)
    tell(args, gate_table(decided), as_json(dataclasses.asdict(decided)))
    return 0 if decided.released else 1


GATE = Verb("say whether a run may be released, by a policy's limits", _arguments, _run)
