"""Finds and imports plugins: those of installed packages when a table is first read, named ones when they are named.

A plugin imports hf_unlearn, so none is imported while hf_unlearn itself is being imported: names stand in
`PluginTable`s, which ask for the installed plugins when somebody reads them, not when they are made.
"""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path
from types import ModuleType

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
        modules: dotted names, or paths of Python files ("my_loss.py"); each assigns a `Plugin` to `HF_UNLEARN`.
            Installed plugins (entry-point group `hf_unlearn.plugins`) need not be named; one that is must be whole.

    Raises:
        ValueError: a module that cannot be imported or declares nothing, something of a wrong type, or a name that is
            taken.
    """
    names = [modules] if isinstance(modules, str) else list(modules or ())
    for name in names:
        file = plugin_file(name)
        module = name.partition(":")[0] if file is None else _name_of_file(file)
        if module not in _loaded:
            try:
                _loaded[module] = LoadedPlugin(_source_of_module(module), _declared(name, file))
            except _FAILURES as error:
                raise input_error(
                    expected=f"a module or a Python file that can be imported and assigns a Plugin to {DECLARED}",
                    got=f"{name!r}: {type(error).__name__}: {error}",
                    why="the run is to use what it adds",
                    fix="name the file (--plugins my_loss.py), install the package that has the module, or put its "
                    "folder on PYTHONPATH; docs/plugins.md shows one",
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


def plugin_file(name: str) -> Path | None:
    """The Python file that `--plugins` names by its path; None for the dotted name of a module."""
    return Path(name).expanduser().absolute() if name.endswith(".py") else None


def _name_of_file(file: Path) -> str:
    """The module that a file becomes: its stem.

    Raises:
        ValueError: another module has that name, and would be hidden or taken for it.
    """
    name = file.stem
    known = sys.modules.get(name)
    place = getattr(known, "__file__", None) if known is not None else str(file)
    if known is None and name.isidentifier() and (spec := importlib.util.find_spec(name)) is not None:
        place = spec.origin  # the file itself, where its folder is on the path
    if not name.isidentifier() or place is None or Path(place).resolve() != file.resolve():
        raise input_error(
            expected="the file of a plugin under a name that is free, such as my_loss.py",
            got=f"{file.name}, "
            + ("another module's name" if name.isidentifier() else "which no module can be called"),
            why="what the file declares is known by the name of its module",
            fix="give the file another name",
        )
    return name


def _declared(name: str, file: Path | None = None) -> Plugin:
    module, _, attribute = name.partition(":") if file is None else (file.stem, "", "")
    imported = importlib.import_module(module) if file is None else _imported(file)
    plugin = getattr(imported, attribute or DECLARED, None)
    if not isinstance(plugin, Plugin):
        raise ValueError(f"expected {module}.{attribute or DECLARED} to be a Plugin, got {type(plugin).__name__}")
    return plugin


def _imported(file: Path) -> ModuleType:
    """The module of a file, known to Python by its stem as an import would make it."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None  # the file's name ends with .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up while it is being run
    try:
        spec.loader.exec_module(module)
    except _FAILURES:
        del sys.modules[file.stem]
        raise
    return module


def _source_of_module(module: str) -> PluginSource:
    """The installed distribution that a module belongs to, or else the module itself."""
    package = module.partition(".")[0]
    distributions = packages_distributions().get(package, [package])
    try:
        return PluginSource(distributions[0], version(distributions[0]), module)
    except PackageNotFoundError:
        return PluginSource(module, "", module)
