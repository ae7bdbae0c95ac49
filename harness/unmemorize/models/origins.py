"""What a setting `model` names: a folder, a GGUF file, or a repository on the hub."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unmemorize.errors import DataError
from unmemorize.files.parsing import check_depth, parsed
from unmemorize.files.places import INSIDE, located
from unmemorize.models.hub import fetched, fetched_if_there

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
_DECIDING = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.py", "*.jinja")
"""The files of a model folder that can change what is loaded from it."""
_POINTER = b"version https://git-lfs"
"""What git-lfs leaves in place of a file that was not fetched starts with."""


def is_pointer(file: Path) -> bool:
    """Whether git-lfs left a pointer in place of the file."""
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


class Origin(NamedTuple):
    """Where a model lies."""

    kind: Literal["folder", "gguf", "hub"]
    name: str
    """The path, or the hub id."""
    revision: str | None = None
    """The commit, of a model on the hub."""

    def files(self) -> list[Path]:
        """Return the files that decide what is loaded from a folder, or the GGUF file; of the hub none."""
        place = Path(self.name)
        if self.kind != "folder":
            return [place] if self.kind == "gguf" else []
        return sorted({file for pattern in _DECIDING for file in place.glob(pattern) if file.is_file()})

    def file(self, name: str) -> Path | None:
        """Return one of its files, or None if it has none of that name."""
        if self.kind == "hub":
            return fetched_if_there(self.name, name, self.revision)
        path = Path(self.name) / name
        return path if path.is_file() else None


def find_origin(model: str, revision: str | None = None) -> Origin:
    """Return where the model called `model` lies; on the hub, its commit is looked up.

    Raises:
        DataError: it is neither here nor on the hub, or the hub does not give it.
    """
    if _is_path(model):
        path = located(model, "model")
        if path.is_dir():
            return Origin("folder", str(path))
        if path.suffix.lower() == ".gguf":
            return Origin("gguf", str(path))
        raise DataError(
            f"model = {model!r} is a file that is not a GGUF file",
            expected="a model folder (config.json and *.safetensors), a file *.gguf, or a hub id",
            fix=f"name the folder: model = {str(path.parent)!r}",
        )
    if not _is_hub_id(model):
        raise DataError(
            f"model = {model[:100]!r} is neither a path that exists nor a hub id",
            expected="a folder, a file *.gguf, package:NAME/path, or a hub id such as EleutherAI/pythia-70m",
            fix="correct the setting model",
        )
    file = fetched(model, CONFIG, revision, instead=ADAPTER_CONFIG)
    return Origin("hub", model, file.parent.name)


def is_on_hub(model: str) -> bool:
    """Whether `model` is a hub id, and not a place on this machine."""
    return not _is_path(model) and _is_hub_id(model)


def _is_path(model: str) -> bool:
    looks_like_one = model.startswith((INSIDE, ".", "/", "~")) or "\\" in model or model.count("/") > 1
    return looks_like_one or model.lower().endswith(".gguf") or os.path.exists(model)


def _is_hub_id(model: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def config_of(origin: Origin) -> dict[str, Any]:
    """Return what the config.json of a model holds.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = origin.file(CONFIG)
    if path is None:
        names = sorted(other.name for other in Path(origin.name).iterdir())
        raise DataError(
            f"model = {origin.name!r}: the folder holds no {CONFIG}",
            expected=f"a folder written by save_pretrained; it holds {', '.join(names[:8]) or 'nothing'}",
            fix="name the folder that has config.json and *.safetensors in it, or the file *.gguf itself",
        )
    try:
        config = parsed(json.loads, path.read_text(encoding="utf-8"))
        check_depth(config)
        return _checked(config) if isinstance(config, dict) else {}
    except (ValueError, OSError) as error:
        raise DataError(
            f"model = {origin.name!r}: {CONFIG} cannot be read: {error}",
            expected="the JSON that save_pretrained writes",
            fix="save or download the model again",
        ) from error


_COUNTED = re.compile(r"layers?$|blocks?$|experts?$|heads?$")
_MOST = 100_000
"""Layers, experts or heads of a model: each is made, one after the other, before a weight is read."""


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a config holds.

    Raises:
        ValueError: no model can be made of it, or none within a day.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str | None):
        raise ValueError(f"model_type is {model_type!r:.60}, and no name")
    for name, value in config.items():
        if _COUNTED.search(name) and isinstance(value, int) and abs(value) > _MOST:
            raise ValueError(f"{name} is {value:.3g}, more than any model has")
    return config
