"""What other packages add: losses, step wrappers, weightings, attacks, metrics, suites, tasks, each under its name."""

from .declaration import Plugin, PluginSource, components
from .load import load_plugins, plugin_file, plugin_source, suite_source
from .table import PluginTable

__all__ = [
    "Plugin",
    "PluginSource",
    "PluginTable",
    "components",
    "load_plugins",
    "plugin_file",
    "plugin_source",
    "suite_source",
]
