"""`read_published`: a log of other code as rows of figures under this package's names."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import input_error
from ..files import read_json
from ..lineage import file_hash
from . import openunlearning, tofu_log

# What no log of other code has, and a run of this package does.
LACKING = ("intervals", "an oracle on the same rows", "attacks")
READABLE = "TOFU_SUMMARY.json, TOFU_EVAL.json, MUSE_SUMMARY.json, MUSE_EVAL.json or eval_log_aggregated.json"


@dataclass(frozen=True)
class PublishedRow:
    """Figures of one model, as other code has measured them.

    Attributes:
        source: whose code: "OpenUnlearning" or "TOFU".
        name: what tells the log from others: its file, or the folder that it lies in.
        suite: of this package that has the same metrics: "tofu" or "muse".
        figures: by this package's names of the metrics.
        missing: what a row of this package has and this log lacks: intervals, oracle, attacks, metrics.
        differences: how its definitions are not those of this package, in sentences.
        digest: SHA-256 of the file.
    """

    source: str
    name: str
    suite: str
    figures: Mapping[str, float]
    missing: tuple[str, ...]
    digest: str
    differences: tuple[str, ...] = field(default=())


def read_published(path: str | os.PathLike[str], retrained: str | os.PathLike[str] | None = None) -> PublishedRow:
    """Read a log of OpenUnlearning or of TOFU's own code.

    Args:
        path: `TOFU_SUMMARY.json`, `TOFU_EVAL.json`, `MUSE_SUMMARY.json` or `MUSE_EVAL.json` of OpenUnlearning, or
            `eval_log_aggregated.json` of locuslab/tofu. What is in it decides, not its name.
        retrained: TOFU's log of the model retrained without the forget rows; forget quality needs it.

    Returns:
        its figures under this package's names; texts of rows that a log holds are not kept.

    Raises:
        ValueError: no such file, no JSON, a log of another kind, one without a figure that this package knows, or
            `retrained` beside a log of OpenUnlearning, which holds forget quality itself.
    """
    place = Path(path)
    log = _content(place)
    if tofu_log.is_log(log):
        figures = tofu_log.figures(log, None if retrained is None else _content(Path(retrained)))
        source, suite, differences = "TOFU", "tofu", tofu_log.DIFFERENCES
        lacking = tuple(name for name in tofu_log.OF_RETRAINED if name not in figures)
    else:
        if retrained is not None:
            raise input_error(
                expected="a second log beside one of TOFU's own code alone",
                got=f"one beside {place.name}",
                why="logs of OpenUnlearning hold their forget quality",
                fix="leave it out",
            )
        source, (suite, figures, lacking) = "OpenUnlearning", openunlearning.figures(log)
        differences = openunlearning.differences(figures)
    if not figures:
        raise _another(place, "no figure that this package has a name for")
    digest = file_hash(place)
    assert digest is not None
    finite = {name: value if math.isfinite(value) else math.nan for name, value in figures.items()}
    return PublishedRow(source, _name(place), suite, finite, (*LACKING, *lacking), digest, differences)


def _content(place: Path) -> Mapping[str, Any]:
    try:
        content = read_json(place)
    except FileNotFoundError:
        raise _another(place, "no such file") from None
    except (OSError, ValueError) as error:
        raise _another(place, f"a file that is no JSON ({type(error).__name__})") from None
    if not isinstance(content, Mapping) or not content:
        raise _another(place, f"JSON of another kind ({type(content).__name__})")
    return content


def _name(place: Path) -> str:
    """The folder's name where the file's is the same for every model."""
    shared = place.stem.lower().endswith(("_summary", "_eval")) or place.stem.startswith("eval_log")
    folder = place.absolute().parent.name
    return folder if shared and folder else place.stem


def _another(place: Path, got: str) -> ValueError:
    return input_error(
        expected=f"a log of OpenUnlearning or TOFU: {READABLE}",
        got=f"{got} ({place.name})",
        why="its figures would not be known by their names",
        fix="pass the file that their evaluation wrote",
    )
