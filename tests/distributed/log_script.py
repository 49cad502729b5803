"""A training that is logged on each rank, and its replays, started on each rank by a launcher. Not their tests.

    torchrun --nproc_per_node 2 log_script.py FOLDER

Every rank writes FOLDER/<rank>.json: the tokens it trained on, whether two replays ended in the same weights, and what
was refused.
"""

import json
import sys
from pathlib import Path

from fixtures.logged import logged, make, rows_of, same, weights
from hf_unlearn.unlearnable import read_log, replay


def main(folder: Path) -> None:
    seen: list[list[list[int]]] = []

    def spied(trainer):
        step = trainer.training_step
        trainer.training_step = lambda model, inputs, *rest: (
            seen.append(inputs["input_ids"].tolist()) or step(model, inputs, *rest)
        )

    trainer = logged("plain", folder, prepare=spied, options={"checkpoints": 1})
    rank, original = trainer.args.process_index, weights(trainer)
    log, rows = read_log(folder / "log"), rows_of("plain")
    first = log.steps[1].rows["train"]
    gone = [rows[first[0][0][0]]]

    def replayed(name, without, **options):
        return weights(replay(make("plain", folder / name), folder / "log", without, rows=rows, **options))

    one, other = replayed("a", gone), replayed("b", gone, from_start=True)
    try:
        replayed("c", [rows[row] for row in first[0][0]])
        refused = ""
    except ValueError as error:
        refused = str(error)
    result = {"seen": seen, "same": same(one, other), "moved": not same(one, original), "refused": refused}
    result |= {"repeated": same(replayed("d", []), original), "processes": trainer.accelerator.num_processes}
    (folder / f"{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
