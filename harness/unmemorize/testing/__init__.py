"""For authors of plugins: the conformance suite, and tiny real models to test on.

    from unmemorize.testing import conformance
    from my_package import MyMethod

    test_conformance = conformance(MyMethod)

Nothing heavy is imported before it is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
