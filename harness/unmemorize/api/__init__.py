"""The verbs of the library, one module for each purpose."""

from unmemorize.api.finding import find
from unmemorize.api.mitigation import Mitigation, mitigate
from unmemorize.api.runs import RESULTS, Results, export, load_registry, load_results, run
from unmemorize.files.places import cache_folder

__all__ = [
    "RESULTS",
    "Mitigation",
    "Results",
    "cache_folder",
    "export",
    "find",
    "load_registry",
    "load_results",
    "mitigate",
    "run",
]
