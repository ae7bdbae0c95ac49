"""unmemorize: benchmark, compare and apply mitigations of memorization in language models.

The stub beside this file is the list of the public names. They are stable; the packages that they come from are not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
