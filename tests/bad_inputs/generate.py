"""Makes bad inputs by mutation of good ones, from a seed: arguments, methods, rows, records. No test lives here."""

import dataclasses
import json
import math
import random
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_unlearn.losses import ANCHOR_LOSSES, FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.steps.weighting import WEIGHTINGS
from hf_unlearn.training.argument_ranges import OF_TRAINER, RANGES

# Type -> values that are never of it, whatever text is read as.
_WRONG: dict[Any, tuple[Any, ...]] = {
    bool: ("maybe", 3, [], "", 0.5),
    int: ("many", 1.5, True, math.nan, [], "1.5", {}),
    float: ("much", math.nan, math.inf, True, [], {}, "1,5"),
    str: (5, [], 1.5, {}),
    dict: (5, [1], True),
    list: (5, {}, True),
}


def bad_arguments(kind: type, draw: random.Random, a_field: int) -> Iterator[tuple[str, Any]]:
    """Names and values of a dataclass's fields that it is to refuse: of another type, or out of range.

    Args:
        kind: the dataclass.
        draw: chooses among the values.
        a_field: how many values of each field.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        wrong = _wrong_values(hints[field.name])
        if field.name in OF_TRAINER or wrong is None:
            continue
        if field.default is not None and types.NoneType not in typing.get_args(hints[field.name]):
            wrong.append(None)
        bounds = RANGES.get(field.name, {})
        if "at_least" in bounds:
            wrong += [bounds["at_least"] - 1 - (2 if bounds.get("allowed") else 0), -(10**6)]
        if "above" in bounds:
            wrong += [bounds["above"], -0.5]
        if "below" in bounds:
            wrong.append(bounds["below"])
        for value in draw.sample(wrong, min(a_field, len(wrong))):
            yield field.name, value


def _wrong_values(annotation: Any) -> list[Any] | None:
    """None where an annotation has a type of which nothing is known here."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = [
        typing.get_origin(option) or option for option in (typing.get_args(annotation) if is_union else (annotation,))
    ]
    options = [option for option in options if option is not types.NoneType]
    if not all(option in _WRONG for option in options):
        return None
    candidates = [value for option in options for value in _WRONG[option]]
    # What one type of a union refuses, another may take.
    return [value for value in candidates if not any(_may_be(value, option) for option in options)]


def _may_be(value: Any, option: Any) -> bool:
    if option is str:
        return isinstance(value, str)
    if option is bool:
        return isinstance(value, bool)
    if option in (int, float):
        is_number = isinstance(value, int if option is int else int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    return isinstance(value, option)


def bad_methods(draw: random.Random) -> Iterator[tuple[str, Any, str]]:
    """Argument, spec and the word that the error is to have: unknown names, unknown arguments, wrong values."""
    tables = {
        "forget_loss": FORGET_LOSSES,
        "retain_loss": RETAIN_LOSSES,
        "anchor_loss": ANCHOR_LOSSES,
        "step_wrappers": STEP_WRAPPERS,
        "weighting": WEIGHTINGS,
    }
    for argument, table in tables.items():
        yield argument, "no_such_name", "no_such_name"
        yield argument, {"beta": 1.0}, argument
        yield argument, '{"name": ', "JSON"
        for name, kind in table.items():
            yield argument, {"name": name, "no_such_argument": 1}, "no_such_argument"
            for field in dataclasses.fields(kind):
                if field.type in ("float", "int", float, int):
                    for value in draw.sample(("text", None, True, [], math.nan), 2):
                        yield argument, {"name": name, field.name: value}, field.name


def bad_records(sound: dict[str, Any], draw: random.Random, count: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Records with one key of another type, taken away or added, and the name of that key."""
    places = [place for place in _places(sound) if place and not _free(place)]
    for _ in range(count):
        record = json.loads(json.dumps(sound))
        place = draw.choice(places)
        holder = record
        for key in place[:-1]:
            holder = holder[key]
        value = holder[place[-1]]
        wrong: list[Any] = [["a list"], {"a": {"b": 1}}, -7.25]
        if isinstance(value, dict):
            wrong = [["a list"], "text", 3, None]
        elif isinstance(value, list):
            wrong = [{"a": 1}, "text", 3, None]
        holder[place[-1]] = draw.choice(wrong[:2] if isinstance(value, float) or value is None else wrong)
        yield record, str(next(key for key in reversed(place) if isinstance(key, str)))


def bad_texts(sound: str, draw: random.Random) -> Iterator[bytes]:
    """What an editor, a full disk or another program makes of a JSON file, so that it cannot be read as it was."""
    yield from (b"", b"{", b"null", b"3", b'"text"', b"\xff\xfe\x00", sound.encode("utf-16"), b"[" * 200_000)
    yield sound.encode()[: draw.randrange(len(sound) // 4, len(sound) - 2)]
    # Half of a character, which JSON can name and no file can hold; and a letter of another encoding.
    at = sound.index('": "') + 4
    for letter in ("\\ud800", "ö"):
        yield (sound[:at] + letter + sound[at:]).encode("latin-1")


def bad_adapters(sound: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Configurations of an adapter with a key of another type or none, and the name of that key."""
    yield {name: value for name, value in sound.items() if name != "peft_type"}, "peft_type"
    wrong = {"peft_type": 5, "r": "two", "lora_alpha": [8], "lora_dropout": None, "target_modules": 7}
    for name, value in (wrong | {"base_model_name_or_path": {}, "modules_to_save": "lm_head", "revision": 3}).items():
        yield sound | {name: value}, name


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict):
        for name in value:
            yield from _places(value[name], (*place, name))
    elif isinstance(value, list):
        for index in range(min(2, len(value))):
            yield from _places(value[index], (*place, index))


def _free(place: tuple[Any, ...]) -> bool:
    """Whether a user's own values stand there: arguments of a run and of its parts, settings of a suite."""
    free = {"arguments", "settings", "adapter", "run", "format", "interval"}
    return bool(free.intersection(place[:-1])) or place[-1] in ("format", "platform")


def bad_files(folder: Path, draw: random.Random) -> Iterator[Path]:
    """Files of rows that no reader may take: empty, cut off, of another encoding, of another kind, a folder."""
    folder.mkdir()
    rows = [{"prompt": f"who keeps key {i}?", "completion": f" the keeper {i} of Köln"} for i in range(8)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    table = "prompt,completion\n" + "".join(f'"{row["prompt"]}","{row["completion"]}"\n' for row in rows)
    noise = [bytes(draw.randrange(256) for _ in range(64)) for _ in range(3)]
    contents: dict[str, list[bytes]] = {
        "jsonl": [b"", b"\n\n", text.encode("latin-1"), text.encode("utf-16"), b'{"prompt": ', b"\x1f\x8b" + noise[0]],
        "json": [b"", b"[]", b"[{]", b'"text"', b"{", text.encode("latin-1")],
        "csv": [b"", b"prompt,completion\n", b"a,a\n1,2\n", table.encode("latin-1"), b"prompt\n1,2,3\n", b"\n"],
        "parquet": [b"", b"PAR1", b"PAR1" + noise[1] + b"PAR1", table.encode(), noise[2]],
        "txt": [b"", b" \n\n", "Köln\n".encode("latin-1"), b"\xff\xfe\xfa\n"],
        # Arrow ends the process on a lone null, and makes columns of what is no object.
        "values.json": [
            b"null",
            b"3",
            b"[1, 2]",
            b'["a", "b"]',
            b"[[1], [2]]",
            b'[{"prompt": "a"}, 3]',
            b"[" * 99_999,
        ],
        "values.jsonl": [b"null\n", b"1\n2\n", b'"a"\n', b"[1]\n[2]\n", b"{}\nnull\n", b"{\n}\n", b"{}\n{}\n"],
        "nul.txt": [b"a\0b\n", bytes(range(128))],
        "nul.csv": [b"prompt,completion\na\0, b\n", table.encode("utf-16-le")],
        "xlsx": [b"PK\x03\x04"],
    }
    # A line that is cut off, wherever it is.
    contents["jsonl"] += [text.encode()[: draw.randrange(10, 30) + 60 * i] for i in range(8)]
    for ending, variants in contents.items():
        for index, content in enumerate(variants):
            path = folder / f"{index}.{ending}"
            path.write_bytes(content)
            yield path
    for ending in ("jsonl", "csv", "parquet"):
        (folder / f"folder.{ending}").mkdir()
        yield folder / f"folder.{ending}"
        yield folder / f"nowhere.{ending}"
