"""What other packages add: losses, step wrappers, weightings, metrics, suites and tasks, each under its name."""

from .declaration import Plugin, PluginSource
from .load import load_plugins, source_of
from .table import PluginTable

__all__ = ["Plugin", "PluginSource", "PluginTable", "load_plugins", "source_of"]
