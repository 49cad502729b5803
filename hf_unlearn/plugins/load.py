"""Finds and imports plugins: those of installed packages when a table is first read, named ones when they are named.

A plugin imports hf_unlearn, so none is imported while hf_unlearn itself is being imported: names stand in
`PluginTable`s, which ask for the installed plugins when somebody reads them, not when they are made.
"""

import importlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version

from ..errors import input_error
from .declaration import Plugin, PluginSource

GROUP = "hf_unlearn.plugins"
DECLARED = "HF_UNLEARN"

logger = logging.getLogger(__name__)

# What the import of a module that nobody here has written may raise.
_FAILURES = (
    *(ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, LookupError),
    *(ArithmeticError, AssertionError, RuntimeError, OSError),
)


@dataclass
class LoadedPlugin:
    """A plugin that was imported.

    Attributes:
        source: where it came from.
        plugin: what it declares.
        named: whether the run names it, and so is refused where something of it does not fit.
    """

    source: PluginSource
    plugin: Plugin
    named: bool = False


_loaded: dict[str, LoadedPlugin] = {}  # by module
_discovered = False
# Tables that have been made; each takes what is its own of a plugin.
_tables: list[Callable[[], None]] = []


def load_plugins(modules: Iterable[str] | str | None = None) -> None:
    """Import the modules that a run names, and add what they declare.

    Args:
        modules: dotted names; each module assigns a `Plugin` to `HF_UNLEARN`. Installed plugins (entry-point group
            `hf_unlearn.plugins`) need not be named; one that is must be whole.

    Raises:
        ValueError: a module that cannot be imported or declares nothing, something of a wrong type, or a name that is
            taken.
    """
    names = [modules] if isinstance(modules, str) else list(modules or ())
    for name in names:
        module = name.partition(":")[0]
        if module not in _loaded:
            try:
                _loaded[module] = LoadedPlugin(_source_of_module(module), _declared(name))
            except _FAILURES as error:
                raise input_error(
                    expected=f"a module that can be imported and assigns a Plugin to {DECLARED}",
                    got=f"{name!r}: {type(error).__name__}: {error}",
                    why="the run is to use what it adds",
                    fix="install the package that has it, or put its folder on PYTHONPATH; docs/plugins.md shows one",
                ) from error
        _loaded[module].named = True
    if names:
        for join in _tables:
            join()


def loaded_plugins() -> list[LoadedPlugin]:
    """The installed plugins and those that were named, imported at the first call."""
    global _discovered
    if not _discovered:
        _discovered = True  # before the imports, which may read tables themselves
        for entry in entry_points(group=GROUP):
            _load_installed(entry)
    return list(_loaded.values())


def plugin_source(declared: object) -> PluginSource | None:
    """The package that something comes from; None for this package's own and for what no plugin declares."""
    for loaded in _loaded.values():
        if any(declared is entry for entry in loaded.plugin.declared()):
            return loaded.source
    return None


def suite_source(name: str) -> PluginSource | None:
    """The package that the suite of a name comes from; None for this package's own and for a script's."""
    return next((loaded.source for loaded in _loaded.values() if name in loaded.plugin.suites), None)


def watch(join: Callable[[], None]) -> None:
    """Call `join` whenever named plugins have been loaded."""
    _tables.append(join)


def _load_installed(entry: EntryPoint) -> None:
    """Import a plugin of an installed package; one that is broken is left out with a warning."""
    if entry.module in _loaded:
        return
    package = entry.dist
    named = (package.name, package.version) if package is not None else (entry.module, "")
    source = PluginSource(*named, entry.module)
    try:
        plugin = _declared(entry.value)
    except _FAILURES as error:
        left_out(source, f"{type(error).__name__}: {error}")
        return
    _loaded.setdefault(entry.module, LoadedPlugin(source, plugin))


def left_out(source: PluginSource, problem: str) -> None:
    """Warn of something of an installed plugin that cannot be used."""
    logger.warning(f"The plugin {source.module} of the package {source} is left out: {problem}")


def _declared(name: str) -> Plugin:
    module, _, attribute = name.partition(":")
    imported = importlib.import_module(module)
    plugin = getattr(imported, attribute or DECLARED, None)
    if not isinstance(plugin, Plugin):
        raise ValueError(f"expected {module}.{attribute or DECLARED} to be a Plugin, got {type(plugin).__name__}")
    return plugin


def _source_of_module(module: str) -> PluginSource:
    """The installed distribution that a module belongs to, or else the module itself."""
    package = module.partition(".")[0]
    distributions = packages_distributions().get(package, [package])
    try:
        return PluginSource(distributions[0], version(distributions[0]), module)
    except PackageNotFoundError:
        return PluginSource(module, "", module)
