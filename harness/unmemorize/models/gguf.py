"""GGUF files: unpacked once into an ordinary folder of safetensors, from where loading takes a second."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from unmemorize.contracts.context import Context
from unmemorize.errors import DataError
from unmemorize.files.cached import CacheEntry
from unmemorize.files.digests import content_digest
from unmemorize.files.error_reasons import reason_of
from unmemorize.models.origins import Origin
from unmemorize.models.saving import save_model
from unmemorize.models.versions import unpacking

_FORMAT = 1
"""Raised when the same file would be unpacked to other weights or another tokenizer."""
_MAGIC = b"GGUF"


@contextmanager
def unpacked(origin: Origin, dtype: str, cache: Path | None) -> Iterator[Origin]:
    """Give the folder of a GGUF file's weights and tokenizer: kept in the cache, or there as long as the context.

    The weights are unpacked to `dtype` (float32 where that is `auto`): packed ones can be neither trained nor edited.
    Cost, once: 34 s for 135 million parameters on one CPU core, and a file of 4 bytes per parameter.

    Raises:
        DataError: the file is damaged or of an unknown architecture, or a package that reads it is missing.
    """
    import transformers

    file = Path(origin.name)
    _check(file)
    kind = "float32" if dtype == "auto" else dtype
    identity = {
        "format": _FORMAT, "file": file.name, "content": content_digest(file), "dtype": kind,
        "transformers": transformers.__version__,
    }  # fmt: skip
    with CacheEntry(Context(cache=cache), "models", identity).folder(
        lambda folder, _: _unpack(file, kind, folder)
    ) as kept:
        yield Origin("folder", str(kept))


def _check(file: Path) -> None:
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise DataError(
                f"model = {str(file)!r}: reading GGUF files needs the package {package}, which is not installed",
                expected="the extra gguf of unmemorize",
                fix="pip install 'unmemorize[gguf]'",
            )
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise DataError(
                f"model = {str(file)!r} is no GGUF file, whatever its name says",
                expected="a file that starts with the four letters GGUF",
                fix="download it again; a page that asks for a login is the usual cause",
            )


def _unpack(file: Path, dtype: str, folder: Path) -> None:
    model, tokenizer = _read(file, dtype)
    save_model(model, folder, tokenizer)


def _read(file: Path, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with redirect_stderr(StringIO()):  # its progress bar asks nobody
            model = AutoModelForCausalLM.from_pretrained(**place, **unpacking(), dtype=getattr(torch, dtype))
            return model, AutoTokenizer.from_pretrained(**place)
    except Exception as error:  # the gguf library raises plain exceptions at damaged files
        raise DataError(
            f"model = {str(file)!r} could not be unpacked: {reason_of(error)}",
            expected="a whole GGUF file of a causal language model whose architecture transformers can unpack",
            fix="download it again, or name the same model's folder or hub id of safetensors",
        ) from error
