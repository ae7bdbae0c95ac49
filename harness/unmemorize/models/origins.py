"""What a setting `model` names: a folder, a GGUF file, or a repository on the hub; and whether it can be loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unmemorize.errors import DataError, nearest
from unmemorize.files.places import INSIDE, located
from unmemorize.models.hub import fetched, fetched_if_there

_CONFIG = "config.json"


class Origin(NamedTuple):
    """Where a model lies."""

    kind: Literal["folder", "gguf", "hub"]
    name: str
    """The path, or the hub id."""
    revision: str | None = None
    """The commit, of a model on the hub."""

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
    file = fetched(model, _CONFIG, revision)
    return Origin("hub", model, file.parent.name)


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


def check_loadable(origin: Origin, *, trusted: bool) -> None:
    """Refuse, before any weight is read, a model whose config says that it cannot be loaded.

    Raises:
        DataError: no config, an unknown architecture, code of its own that nobody trusted, or no causal language model.
    """
    config = _config(origin)
    model_type, auto = str(config.get("model_type")), config.get("auto_map") or {}
    known, causal = _known(model_type)
    if auto and not known and not trusted:
        raise DataError(
            f"model = {origin.name!r} needs Python files that come with it ({', '.join(sorted(auto))})",
            expected="an architecture that transformers knows, or your consent to run those files",
            fix="read them, then set trust_remote_code = true",
        )
    if not known and not auto:
        raise DataError(
            f"model = {origin.name!r}: transformers does not know the model type {model_type!r} of its {_CONFIG}",
            expected=f"a causal language model: {', '.join(_like(model_type))}, ...",
            fix="pip install --upgrade transformers, or name another model",
        )
    if not causal and "AutoModelForCausalLM" not in auto:
        raise DataError(
            f"model = {origin.name!r} is of type {model_type!r}, which is no causal language model",
            expected="a model that predicts the next token (GPT-2, GPT-NeoX, Llama, ...)",
            fix="name another model",
        )


def _config(origin: Origin) -> dict[str, Any]:
    path = origin.file(_CONFIG)
    if path is None:
        names = sorted(other.name for other in Path(origin.name).iterdir())
        raise DataError(
            f"model = {origin.name!r}: the folder holds no {_CONFIG}",
            expected=f"a folder written by save_pretrained; it holds {', '.join(names[:8]) or 'nothing'}",
            fix="name the folder that has config.json and *.safetensors in it, or the file *.gguf itself",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(
            f"model = {origin.name!r}: {_CONFIG} cannot be read: {error}",
            expected="the JSON that save_pretrained writes",
            fix="save or download the model again",
        ) from error
    return config if isinstance(config, dict) else {}


def _known(model_type: str) -> tuple[bool, bool]:
    """Return whether transformers knows the model type, and whether it is a causal language model there."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if model_type not in CONFIG_MAPPING:
        return False, False
    return True, CONFIG_MAPPING[model_type] in MODEL_FOR_CAUSAL_LM_MAPPING


def _like(model_type: str) -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return nearest(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
