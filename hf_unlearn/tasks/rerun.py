"""A run done again from its folder, as it was started: same rows, arguments, seed and number of processes."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from ..errors import input_error
from ..plugins import load_plugins
from ..results.record import RECORD_FILE, load_record
from ..training.launch.start import has_accelerator, launch_processes
from .command_file import stored_command


def rerun(folder: str | Path, output: str | Path, more: Sequence[str] = ()) -> int:
    """Do a run again, into another folder.

    Args:
        folder: of the run, with its command.json.
        output: folder of the new one.
        more: flags that come on top, such as --resume_from_checkpoint true.

    Returns:
        the exit status of the run.

    Raises:
        ValueError: the folder holds no run of `hf-unlearn train`, or the new one is to lie in the same folder.
    """
    from . import run_task

    folder, output = Path(folder), Path(output)
    load_record(folder)
    if folder.resolve() == output.resolve():
        raise input_error(
            expected="--output_dir with another folder than that of the run",
            got=f"{folder.name} as both",
            why="the run would be written over, and there would be nothing to compare with",
            fix=f"leave it out: {folder.name}-rerun",
        )
    stored = stored_command(folder)
    load_plugins(stored.get("plugins"))  # the task may be one of theirs
    launch = _by_name(stored.get("launch", []))
    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(dict(stored["recipe"])), encoding="utf-8")
        words = ["--config", str(recipe), *stored["words"], "--output_dir", str(output), *more]
        if not launch:
            trainer = run_task(stored["task"], words)
            trainer.accelerator.end_training()
            return 0
        on_cpu = [] if has_accelerator() or "--use_cpu" in words else ["--use_cpu"]
        with _output_to_stderr():
            status = launch_processes(launch, ["train", "--task", stored["task"], *words, *on_cpu])
    # The processes have said why.
    return status if status or (output / RECORD_FILE).is_file() else 1


def _by_name(flags: Sequence[str]) -> dict[str, str]:
    """Flags of accelerate, each with its value, by name."""
    return {flag.removeprefix("--"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Let what other processes print go where it is no result."""
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
