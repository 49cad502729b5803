"""Reads TOFU's published logs and holds the figures against aggregates of the published code, to four digits.

    python -m benchmarks.quality.published_logs LOGS --retrained RETAIN90_LOG [--expected expected_aggregate.json]

`LOGS` is a folder of `*_eval_log_aggregated.json`, e.g. those that early commits of locuslab/tofu have in
`data/*/eval_results/ds_size300`. `--expected` is JSON: {part of a log's name: {TOFU's name of a figure: value}}.
"""

import argparse
import json
from pathlib import Path

from hf_unlearn.results.published import PublishedRow, read_published
from hf_unlearn.results.published.tables import TOFU_NAMES

DIGITS = 4


def differing(row: PublishedRow, expected: dict[str, float]) -> list[str]:
    """Names of the figures that are not the expected ones to four digits, or absent."""
    theirs = {TOFU_NAMES[name]: value for name, value in expected.items() if name in TOFU_NAMES}
    return [name for name, value in theirs.items() if _short(row.figures.get(name, float("nan"))) != _short(value)]


def _short(value: float) -> str:
    return f"{value:.{DIGITS}g}"


def main() -> None:
    """Print the figures of each log; end with an error if one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path)
    parser.add_argument("--retrained", type=Path, required=True)
    parser.add_argument("--expected", type=Path)
    args = parser.parse_args()
    expected = json.loads(args.expected.read_text()) if args.expected else {}
    wrong = []
    for row in read_published(args.logs, retrained=args.retrained):
        print(f"{row.name}: " + ", ".join(f"{name} {_short(value)}" for name, value in row.figures.items()))
        for part, figures in expected.items():
            if part in row.name:
                found = differing(row, figures)
                wrong += found
                print(f"  {len(figures)} published aggregates, {', '.join(found) or 'none'} differ to {DIGITS} digits")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
