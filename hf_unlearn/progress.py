"""How far a run is: bars on a terminal that name model and phase, in a log a line a phase. Trainer has its own bar."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass
class _Phase:
    name: str
    one_line: bool
    told: set[str] = field(default_factory=set)


_open: ContextVar[_Phase | None] = ContextVar("phase", default=None)


@contextmanager
def phase(name: str, *, one_line: bool = False, shown: bool = True) -> Iterator[None]:
    """Name what is done within, in its bars and lines: "after", "relearn on the oracle".

    Args:
        name: of the model, or of what is done with it.
        one_line: in a log, tell the phase itself at once, and none of its parts.
        shown: whether this process tells of it.
    """
    if one_line and shown and not sys.stderr.isatty():
        print(name, file=sys.stderr, flush=True)
    token = _open.set(_Phase(name, one_line))
    try:
        yield
    finally:
        _open.reset(token)


def progress(
    items: Iterable[Item],
    description: str,
    *,
    total: int | None = None,
    shown: bool = True,
    size: Callable[[Item], int] = lambda _: 1,
) -> Iterator[Item]:
    """The items, with a bar on a terminal; elsewhere with a line at the first time in an open phase.

    Args:
        items: what is gone through.
        description: of what is done, without the model's name.
        total: their number, where they do not know it themselves.
        shown: whether this process tells of it.
        size: of an item, as `total` counts them.
    """
    if sys.stderr.isatty():
        with bar(desc=description, total=_length(items) if total is None else total, disable=not shown) as shown_bar:
            for item in items:
                yield item
                shown_bar.update(size(item))
        return
    if shown:
        _tell(description)
    yield from items


def _length(items: Iterable[Any]) -> int | None:
    return len(items) if isinstance(items, Sized) else None


def bar(*arguments: Any, **settings: Any) -> Any:
    """tqdm's bar, with the name of the open phase before its description; on terminals alone, and gone at its end."""
    from tqdm.auto import tqdm  # here: a program without a bar starts sooner

    # None: where there is no terminal.
    ours = {"desc": _named(settings.get("desc") or ""), "disable": settings.get("disable") or None, "leave": False}
    return tqdm(*arguments, **settings | ours)


def _named(description: str) -> str:
    now = _open.get()
    return description if now is None else f"{now.name}: {description}" if description else now.name


def _tell(description: str) -> None:
    now = _open.get()
    if now is None or now.one_line or description in now.told:
        return
    now.told.add(description)
    print(_named(description), file=sys.stderr, flush=True)
