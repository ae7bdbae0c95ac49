"""A model as it was: what a method changed in it, and how it is restored."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from unmemorize.errors import listed

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Testbed


class Changes(NamedTuple):
    """How much of a model differs from its reference."""

    edited: int
    parameters: int


class Reference:
    """A model as it was: to count what was changed, and to restore everything.

    Memory: one copy of the parameters and buffers on the CPU.
    """

    def __init__(self, model: nn.Module) -> None:
        self._kind, self._shapes = type(model), _shapes(model)
        self._holders = [_Holder.of(thing) for thing in _holders(model)]
        self._tensors: dict[int, _Kept] = {}
        self._originals: dict[str, Tensor] = {}
        named = [model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)]
        for name, tensor in itertools.chain(*named):
            if id(tensor) not in self._tensors:
                self._tensors[id(tensor)] = _Kept.of(tensor)
            self._originals[name] = self._tensors[id(tensor)].original

    def original(self, name: str) -> Tensor:
        """Return the value that a parameter or buffer had, on the CPU."""
        return self._originals[name]

    @torch.no_grad()
    def changes(self, model: nn.Module) -> Changes:
        """Count the parameters whose value differs. Tied parameters count once."""
        edited = total = 0
        for name, parameter in model.named_parameters():
            total += parameter.numel()
            edited += int((parameter.detach().cpu() != self._originals[name]).sum())
        return Changes(edited=edited, parameters=total)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore modules, hooks, modes and config, and every tensor at the places where it differs."""
        for holder in self._holders:
            holder.restore()
        for kept in self._tensors.values():
            kept.restore()

    def left_behind(self) -> list[str]:
        """Return in words which hooks and patched `forward`s are there that were not."""
        return [words for holder in self._holders if isinstance(holder.thing, nn.Module) for words in holder.left()]

    def other_shape(self, model: nn.Module) -> str:
        """Return in words what is other than it was: keys, shapes, dtypes, class; nothing if all are the same."""
        now = _shapes(model)
        gone = [name for name in self._shapes if name not in now]
        new = [name for name in now if name not in self._shapes]
        if gone or new:
            said = [f"lost {listed(gone)}"] * bool(gone) + [f"has new {listed(new)}"] * bool(new)
            return f"the state dict {' and '.join(said)}"
        for name, (shape, dtype) in self._shapes.items():
            if now[name] != (shape, dtype):
                return f"{name} is {tuple(now[name][0])} {now[name][1]}, and was {tuple(shape)} {dtype}"
        if type(model) is not self._kind:
            return f"the model is a {type(model).__name__}, and was a {self._kind.__name__}"
        return ""


def _shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}


def _holders(model: nn.Module) -> list[Any]:
    """Return every module of a model and every config that one holds, each once."""
    modules = list(model.modules())
    configs = [vars(module).get(name) for module in modules for name in ("config", "generation_config")]
    return [*modules, *{id(config): config for config in configs if hasattr(config, "__dict__")}.values()]


class DataReference:
    """The sequences of a testbed as they were, so that what a plugin writes into them reaches no other cell.

    Memory: one copy of all sets.
    """

    def __init__(self, testbed: Testbed) -> None:
        self._kept = [
            (name, tensor, tensor.clone())
            for name, sequences in testbed.sets().items()
            for tensor in (getattr(sequences, field) for field in sequences.__dataclass_fields__)
            if isinstance(tensor, Tensor)
        ]

    def restore(self) -> list[str]:
        """Write back what differs, and return the names of the sets in which something did."""
        changed = []
        for name, tensor, original in self._kept:
            if tensor.shape != original.shape or tensor.dtype != original.dtype:
                tensor.data = original.clone()
            elif torch.equal(tensor, original):
                continue
            else:
                tensor.copy_(original)
            changed.append(name)
        return list(dict.fromkeys(changed))


class _Kept(NamedTuple):
    """A parameter or buffer, and what it was."""

    tensor: Any
    original: Tensor
    """Its value, on the CPU."""
    device: torch.device
    requires_grad: bool
    hooks: dict[str, Any]

    @classmethod
    def of(cls, tensor: Tensor) -> _Kept:
        value = tensor.detach().to("cpu", copy=True)
        hooks = {name: copy.copy(getattr(tensor, name)) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")}
        return cls(tensor, value, tensor.device, tensor.requires_grad, hooks)

    def restore(self) -> None:
        """Write the value back where it differs; no gradient is left."""
        tensor, original = self.tensor, self.original.to(self.device)
        if (tensor.shape, tensor.dtype, tensor.device) != (original.shape, original.dtype, original.device):
            tensor.data = original.clone()
        differs = tensor != original
        if differs.any():
            tensor.data[differs] = original[differs]
        tensor.requires_grad_(self.requires_grad)
        tensor.grad = None
        for name, hooks in self.hooks.items():
            setattr(tensor, name, hooks)


class _Holder(NamedTuple):
    """An object with its class and its attributes, and what its containers held."""

    thing: Any
    kind: type
    forward: Any
    """What the class runs."""
    attributes: dict[str, Any]
    contents: dict[str, Any]

    @classmethod
    def of(cls, thing: Any) -> _Holder:
        attributes = dict(vars(thing))
        contents = {name: copy.copy(v) for name, v in attributes.items() if isinstance(v, (dict, set, list))}
        return cls(thing, type(thing), getattr(type(thing), "forward", None), attributes, contents)

    def left(self) -> Iterator[str]:
        """Yield in words what a module has now that would run in or instead of its own `forward`."""
        name, now = type(self.thing).__name__, vars(self.thing)
        hooks = [key for key, held in self.contents.items() if key.endswith("_hooks") and now.get(key) != held]
        yield from (f"{key.strip('_').replace('_', ' ')} on a {name}" for key in hooks)
        if now.get("forward") is not self.attributes.get("forward"):
            yield f"another `forward` on a {name}"
        if type(self.thing) is self.kind and getattr(self.kind, "forward", None) is not self.forward:
            yield f"another `forward` in the class {name}"

    def restore(self) -> None:
        """Restore attributes, the very containers that were there among them: handles of hooks point to these."""
        if type(self.thing) is not self.kind:
            self.thing.__class__ = self.kind
        if getattr(self.kind, "forward", None) is not self.forward:
            self.kind.forward = self.forward  # type: ignore[attr-defined]
        for name, content in self.contents.items():
            container = self.attributes[name]
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)
        vars(self.thing).clear()
        vars(self.thing).update(self.attributes)
