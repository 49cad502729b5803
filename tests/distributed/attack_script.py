"""Attacks that must not depend on the number of processes, started on each rank by a launcher. Not their test.

Every rank writes FOLDER/<world size>-<rank>.json: the report that it has, without times.
"""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fixtures.models import tiny_tokenizer
from fixtures.planted import planted_model, planted_oracle, planted_rows
from hf_unlearn.attacks import Membership, Quantize, Relearn, Sampling, attack


def run() -> dict[str, Any]:
    """The report of a few attacks on the planted secrets, as data."""
    planted = planted_rows()
    report = attack(
        planted_model(),
        tiny_tokenizer(),
        {"forget": planted["forget"], "retain": planted["retain"]},
        [Sampling(), Membership(), Quantize(kinds=("int4",)), Relearn(rates=(1e-3,), steps=2, every=1)],
        controls=planted["unseen"],
        oracle=planted_oracle(),
        before=planted_model(),
        accelerator=Accelerator(cpu=True),
    ).to_dict()
    report.pop("seconds")
    for finding in report["findings"]:
        for leak in finding["subjects"].values():
            leak.pop("seconds")
    return report


def main() -> None:
    """Write what this rank has."""
    report, accelerator = run(), Accelerator(cpu=True)
    name = f"{accelerator.num_processes}-{accelerator.process_index}.json"
    (Path(sys.argv[1]) / name).write_text(json.dumps(report))
    accelerator.end_training()


if __name__ == "__main__":
    main()
