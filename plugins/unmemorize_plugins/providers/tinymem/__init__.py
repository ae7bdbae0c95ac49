"""TinyMem: small models trained from scratch, on arithmetic or on text, with planted artifacts."""

from unmemorize_plugins.providers.tinymem.language import TinyMemLanguage
from unmemorize_plugins.providers.tinymem.provider import TinyMem

__all__ = ["TinyMem", "TinyMemLanguage"]
