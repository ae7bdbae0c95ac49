"""unmemorize: benchmark, compare and apply mitigations of memorization in language models.

The stub beside this file is the list of the public names. They are stable; the packages that they come from are not.
"""

from typing import Any

import lazy_loader

_getattr, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Return a public name, or the version of the installed distribution."""
    if name == "__version__":
        from importlib.metadata import version

        return version("unmemorize")
    return _getattr(name)
