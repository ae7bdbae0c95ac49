"""The parts that methods, metrics and providers are built with: passes, replay, gates, gradients, masks, selection.

The stub beside this file is the list of the names. They may change at a minor version.
"""

import lazy_loader

assert __package__ is not None
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__package__, __file__)
