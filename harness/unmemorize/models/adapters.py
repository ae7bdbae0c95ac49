"""PEFT adapters: merged into a copy of the model that they adapt, or into the base that their folder names."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

from unmemorize.errors import DataError
from unmemorize.files.error_reasons import reason_of
from unmemorize.files.parsing import parsed
from unmemorize.models.origins import ADAPTER_CONFIG, Origin
from unmemorize.models.versions import others_deprecations

_LAYER = "peft.tuners.tuners_utils.BaseTunerLayer"
MODELS = ("peft.peft_model.PeftModel", "peft.mixed_model.PeftMixedModel")


def is_a(thing: object, *classes: str) -> bool:
    """Whether a thing is of one of these classes (`module.Class`), without importing their package."""
    return any(f"{cls.__module__}.{cls.__qualname__}" in classes for cls in type(thing).__mro__)


def holds_adapters(model: Any) -> bool:
    """Whether a model is wrapped by PEFT, or holds adapters that transformers put into it."""
    return is_a(model, *MODELS) or any(is_a(module, _LAYER) for module in model.modules())


def names_of(model: Any) -> list[str]:
    """Return the names of the active adapters."""
    layers = [module for module in model.modules() if is_a(module, _LAYER)]
    return sorted({name for layer in layers for name in layer.active_adapters})


def merged_copy(model: Any) -> Any:
    """Return a copy with its active adapters merged into its weights; the model stays as it is.

    Raises:
        DataError: the adapters cannot be merged (prompts instead of weights).

    Memory: one more copy of the model.
    """
    made = copy.deepcopy(model)
    if not is_a(made, *MODELS):
        return _merged_layers(made)
    if not hasattr(made, "merge_and_unload"):
        raise DataError(
            f"the PEFT adapter of type {made.active_peft_config.peft_type.value} holds no weights that could be merged",
            expected="LoRA or another adapter of weights: prompts and prefixes stand beside the model",
            fix="pass its base: model.get_base_model()",
        )
    layers = [module for module in made.modules() if is_a(module, _LAYER)]
    off = bool(layers) and all(layer.disable_adapters for layer in layers)
    return (made.unload() if off else made.merge_and_unload(safe_merge=True)).requires_grad_()


def _merged_layers(model: Any) -> Any:
    """Merge, in place, what `model.add_adapter` of transformers put in."""
    for name, layer in list(model.named_modules()):
        if is_a(layer, _LAYER):
            if not layer.disable_adapters:
                layer.merge(safe_merge=True)
            model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model.requires_grad_()


class Adapter(NamedTuple):
    """An adapter that lies in a folder or on the hub."""

    origin: Origin
    base: str
    """The model that it adapts: a hub id or a folder."""
    revision: str | None


def adapter_at(origin: Origin) -> Adapter | None:
    """Return the adapter that lies at a place, or None where a model does.

    Raises:
        DataError: its settings cannot be read, or name no base.
    """
    path = None if origin.kind == "gguf" else origin.file(ADAPTER_CONFIG)
    if path is None:
        return None
    try:
        config = parsed(json.loads, path.read_text(encoding="utf-8"))
        base, revision = config.get("base_model_name_or_path") or "", config.get("revision")
        if not isinstance(base, str) or not isinstance(revision, str | None):
            raise ValueError("the base and its revision are names")
    except (ValueError, OSError, AttributeError) as error:
        raise DataError(
            f"model = {origin.name!r} is a PEFT adapter whose {ADAPTER_CONFIG} cannot be read: {error}",
            expected="the JSON that peft writes",
            fix="save or download the adapter again",
        ) from error
    if not base or Path(base).resolve() == Path(origin.name).resolve():
        raise DataError(
            f"model = {origin.name!r} is a PEFT adapter that names no base",
            expected=f"base_model_name_or_path in its {ADAPTER_CONFIG}, or the adapter merged into its base",
            fix=_MERGE,
        )
    return Adapter(origin, base, revision)


_MERGE = "PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(FOLDER), and name FOLDER"


_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def check_usable(adapter: Adapter) -> None:
    """Refuse, before its base is loaded, an adapter where peft is not installed or that has no weights.

    Raises:
        DataError: it is so.
    """
    if importlib.util.find_spec("peft") is None:
        raise DataError(
            f"model = {adapter.origin.name!r} is a PEFT adapter (of {adapter.base!r}), and peft is not installed",
            expected="the extra peft of unmemorize, which merges it into its base",
            fix="pip install peft",
        )
    if not any(adapter.origin.file(name) for name in _WEIGHTS):
        raise DataError(
            f"model = {adapter.origin.name!r} is a PEFT adapter without weights: it has {ADAPTER_CONFIG} and no "
            f"{_WEIGHTS[0]}",
            expected=f"the files that save_pretrained of peft writes: {ADAPTER_CONFIG} and {' or '.join(_WEIGHTS)}",
            fix=f"save or download the adapter again, or name its base: {adapter.base!r}",
        )


def no_base(adapter: Adapter, error: DataError) -> DataError:
    """Return the error for an adapter whose base cannot be had."""
    return DataError(
        f"model = {adapter.origin.name!r} is a PEFT adapter, and its base cannot be had: {error.what}",
        expected=error.expected,
        fix=f"{error.fix}; or merge it yourself: {_MERGE}",
    )


def merged_onto(base: Any, adapter: Adapter) -> Any:
    """Return `base`, with the adapter merged into its weights in place.

    Raises:
        DataError: the adapter does not fit, or is of a kind that cannot be merged.
    """
    from peft import PeftModel

    try:
        with others_deprecations():
            model = PeftModel.from_pretrained(base, adapter.origin.name, revision=adapter.origin.revision)
            return model.merge_and_unload(safe_merge=True).requires_grad_()
    except Exception as error:  # peft raises errors of many kinds, torch at shapes that do not fit
        raise DataError(
            f"model = {adapter.origin.name!r} cannot be merged into its base {adapter.base!r}: {reason_of(error)}",
            expected="an adapter of weights (LoRA and its kind) for a causal language model, made for this base",
            fix=f"merge it where it was trained: {_MERGE}",
        ) from error
