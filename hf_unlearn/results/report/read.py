"""Reading a run's folder for a report: its record, the scores of single rows, the answers marked as showable.

Reads only. No row's text comes along but the prompts and answers that the user marked as showable.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import input_error
from ..evaluation_result import EvaluationResult, load_result
from ..files import read_json
from ..record import RunRecord, load_record
from ..verdict import MODELS

SHOWABLE_FILE = "showable.json"


@dataclass(frozen=True)
class Showable:
    """A prompt that the user marked as showable.

    Attributes:
        prompt: as it was asked.
        answers: by model ("before", "after", "oracle"), those that there are.
    """

    prompt: str
    answers: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run as its folder has it.

    Attributes:
        record: results.json.
        evaluations: by model, with the scores of single rows where `evaluation_<model>.json` lies beside the record.
        showable: prompts with answers that may be shown.
        title: the run's name; nothing of its path.
        notes: what a reader must know of the folder itself.
    """

    record: RunRecord
    evaluations: dict[str, EvaluationResult]
    showable: tuple[Showable, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()


def read_run(folder: str | os.PathLike[str]) -> Run:
    """The run in a folder.

    Raises:
        ValueError: no run lies there, or a file beside its record is of another kind.
    """
    place = Path(folder)
    record = load_record(place)
    evaluations, notes = {}, []
    for name, kept in record.evaluations.items():
        file = place / f"evaluation_{name}.json"
        evaluations[name] = kept
        if not file.is_file():
            continue
        full = load_result(file)
        if _metrics(full) == _metrics(kept):
            evaluations[name] = full
        else:
            notes.append(f"{file.name} holds another evaluation than the record: scores of its rows are not shown.")
    title = record.name or "unnamed run"
    return Run(record, evaluations, _showable(place / SHOWABLE_FILE), title, tuple(notes))


def mismatches(evaluations: Mapping[str, EvaluationResult]) -> list[str]:
    """What keeps results from being compared with those of the model after unlearning, in a sentence each."""
    after = evaluations.get("after")
    if after is None:
        return []
    sentences = []
    for name, result in evaluations.items():
        if result.suite != after.suite:
            sentences.append(f"The model {name} was evaluated with the suite {result.suite}, and is left out here.")
        elif _forget_hash(result) != _forget_hash(after):
            sentences.append(f"The model {name} was evaluated on other forget rows than the model after unlearning.")
    return sentences


def _forget_hash(result: EvaluationResult) -> Any:
    return result.rows.get("forget", {}).get("sha256")


def _metrics(result: EvaluationResult) -> str:
    # As text, in which a NaN equals a NaN.
    return json.dumps([result.suite, result.to_dict()["metrics"]], sort_keys=True)


def _showable(file: Path) -> tuple[Showable, ...]:
    if not file.is_file():
        return ()
    try:
        stored = read_json(file)
    except (OSError, ValueError) as error:
        raise _not_showable(f"what cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, list):
        raise _not_showable(f"a {type(stored).__name__}")
    return tuple(_entry(i, entry) for i, entry in enumerate(stored))


def _entry(index: int, entry: Any) -> Showable:
    if not isinstance(entry, dict) or set(entry) != {"prompt", "answers"}:
        raise _not_showable(f"entry {index} with other keys than prompt and answers")
    prompt, answers = entry["prompt"], entry["answers"]
    if not isinstance(prompt, str) or not isinstance(answers, dict) or not answers:
        raise _not_showable(f"entry {index} whose prompt is no string, or without answers")
    if not set(answers) <= set(MODELS) or not all(isinstance(text, str) for text in answers.values()):
        raise _not_showable(f"entry {index} with answers of other models, or that are no strings")
    return Showable(prompt, {name: answers[name] for name in MODELS if name in answers})


def _not_showable(got: str) -> ValueError:
    return input_error(
        expected=f'{SHOWABLE_FILE} as [{{"prompt": "...", "answers": {{"before": "...", "after": "..."}}}}]',
        got=got,
        why="only text that was marked as showable may stand in a report, and what that is must be beyond doubt",
        fix=f"correct {SHOWABLE_FILE}, or remove it: the report is then made without generations",
    )
