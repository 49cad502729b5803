"""A dict from names to what they stand for, which the plugins' entries join when it is read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import input_error
from .declaration import Plugin, PluginSource
from .load import LoadedPlugin, left_out, loaded_plugins, watch

Entry = TypeVar("Entry")


class PluginTable(dict[str, Entry]):
    """The names of one kind: this package's own, and those of plugins.

    It is read like any dict. Installed plugins are imported at the first read, not when the table is made, so that a
    plugin may import the module that the table stands in.

    Args:
        kind: what the names stand for, in messages.
        packaged: this package's own entries.
        entries: a plugin's entries of this kind; raises ValueError for what is of a wrong type.

    Attributes:
        packaged: this package's own entries; reading them imports no plugin.
    """

    def __init__(
        self, kind: str, packaged: Mapping[str, Entry], entries: Callable[[Plugin], Mapping[str, Entry]]
    ) -> None:
        super().__init__(packaged)
        self.kind, self.packaged = kind, dict(packaged)
        self._entries = entries
        self._sources: dict[str, PluginSource] = {}
        self._refused: dict[str, ValueError] = {}  # by module, what kept its entries out
        self._joined: set[str] = set()
        watch(self._join)

    @property
    def sources(self) -> dict[str, PluginSource]:
        """By name, the package of each entry that is a plugin's."""
        self._join()
        return self._sources

    def _join(self) -> None:
        """Take the entries of plugins that have been loaded since the last read."""
        for loaded in loaded_plugins():
            module = loaded.source.module
            if module not in self._joined:
                self._joined.add(module)
                try:
                    self._take(loaded)
                except ValueError as error:
                    self._refused[module] = error
                    if not loaded.named:
                        left_out(loaded.source, str(error))
            if loaded.named and module in self._refused:
                raise self._refused[module]

    def _take(self, loaded: LoadedPlugin) -> None:
        try:
            entries = dict(self._entries(loaded.plugin))
        except ValueError as error:
            raise input_error(
                expected=f"each {self.kind} of the plugin {loaded.source.module} to be one",
                got=str(error),
                why="it would fail in the middle of a run",
                fix=f"correct the package {loaded.source}; docs/plugins.md shows what each kind is",
            ) from error
        for name in entries:
            if dict.__contains__(self, name):
                raise input_error(
                    expected=f"each {self.kind} under a name of its own",
                    got=f"{name!r} of {loaded.source}, which {self._sources.get(name, 'hf_unlearn')} has already",
                    why="a config, a log and a card would not say which one they mean",
                    fix=f"give the {self.kind} of {loaded.source.package} another name",
                )
        self.update(entries)
        self._sources |= dict.fromkeys(entries, loaded.source)

    def __getitem__(self, name: str) -> Entry:
        self._join()
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._join()
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self._join()
        return super().__iter__()

    def __len__(self) -> int:
        self._join()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._join()
        return super().__eq__(other)

    __hash__ = None  # as of every dict

    def get(self, name: str, default: Any = None) -> Any:
        self._join()
        return super().get(name, default)

    def keys(self) -> Any:
        self._join()
        return super().keys()

    def values(self) -> Any:
        self._join()
        return super().values()

    def items(self) -> Any:
        self._join()
        return super().items()
