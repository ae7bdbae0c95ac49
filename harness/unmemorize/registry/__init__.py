"""The plugin manager: finds plugins, isolates the broken ones, and looks things up by name."""

from unmemorize.registry.entries import PluginInfo
from unmemorize.registry.manager import Registry

__all__ = ["PluginInfo", "Registry"]
