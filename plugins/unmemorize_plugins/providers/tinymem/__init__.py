"""TinyMem: small models trained from scratch on arithmetic sequences with planted artifacts."""

from unmemorize_plugins.providers.tinymem.provider import TinyMem

__all__ = ["TinyMem"]
