"""Where the supported versions of transformers differ: names of arguments, caches of keys and values, checkpointing.

Names are read from the signatures of what is called, so that a model's own code (`trust_remote_code`) is asked as it
is, whatever transformers calls things by then.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

_CACHE_NAMES = ("cache", "past_key_values")
"""What `forward` calls the cache, the newest name first."""


def empty_cache() -> Any:
    """Return a cache that keeps the keys and values of every position, also in layers with a sliding window."""
    from transformers import DynamicCache

    return DynamicCache()


def taking(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Return the argument that hands a cache to a model's (or its base model's) `forward`; none where there is none."""
    if cache is None:
        return {}
    parameters = inspect.signature(type(model).forward).parameters
    return {next((name for name in _CACHE_NAMES if name in parameters), _CACHE_NAMES[0]): cache}


def keys_and_values(cache: Any) -> list[tuple[Tensor, Tensor]]:
    """Return the keys and values of every layer, each (B, heads, T, size of a head)."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def holds_cache(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether a cache, under any name, is among the arguments of a block."""
    from transformers import Cache

    return any(isinstance(value, Cache) for value in (*arguments, *named.values()))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[bool]:
    """Let a model answer as it does when it is used: without dropout, and without checkpointing of its own.

    transformers drops a cache, and runs blocks again in the backward pass, where a model trains with gradient
    checkpointing. Afterwards every module is in the mode in which it was.

    Yields:
        Whether the caller had left gradient checkpointing on.
    """
    modes = [(module, module.training) for module in model.modules()]
    recomputing = [module for module, _ in modes if getattr(module, "gradient_checkpointing", False)]
    model.eval()
    for module in recomputing:
        module.gradient_checkpointing = False  # type: ignore[assignment]
    try:
        yield bool(recomputing)
    finally:
        for module, training in modes:
            module.training = training
        for module in recomputing:
            module.gradient_checkpointing = True  # type: ignore[assignment]


@contextmanager
def others_deprecations() -> Iterator[None]:
    """Keep silent what transformers tells another library that calls it by old names: our users cannot change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def unpacking() -> dict[str, Any]:
    """Return what makes `from_pretrained` unpack a GGUF file's weights: packed ones cannot be saved as usual."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)  # before it existed, all weights were unpacked
    return {} if config is None else {"quantization_config": config(dequantize=True)}
