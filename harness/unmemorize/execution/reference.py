"""A model as it was: what was changed in it, and how it is restored."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unmemorize.contracts.bits import same_bits
from unmemorize.errors import listed

_PLAIN = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None), torch.dtype, torch.device)
"""Values that are the same where they are equal; all others where they are one object."""
_WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_LOOKED_AT_ELSEWHERE = ("_parameters", "_buffers", "_modules", "training", "forward", "gradient_checkpointing")


class Changes(NamedTuple):
    """How much of a model differs from its reference."""

    edited: int
    parameters: int


class Differences(NamedTuple):
    """In words, how a model differs from its reference in anything but the values of its tensors."""

    hooks: list[str]
    """What runs in or instead of a module's own `forward`: hooks, other classes, other modules."""
    attributes: list[str]
    """Attributes of modules, and configs: what may change what a module computes."""
    modes: list[str]
    """Modes, flags and gradients, in which a model is used one way or another."""

    def all(self) -> list[str]:
        """Return all of them."""
        return [*self.hooks, *self.attributes, *self.modes]


class Reference:
    """A model as it was: to count what was changed, and to restore everything.

    Args:
        model: the model.
        values: whether to keep the values of tensors; without them nothing can be counted or written back.

    Memory: one copy of the parameters and buffers on the CPU.
    """

    def __init__(self, model: nn.Module, *, values: bool = True) -> None:
        self._shapes, self._ties, self._kind = _shapes(model), _ties(model), type(model)
        self._modules = {name: _Holder.of(module) for name, module in model.named_modules()}
        self._configs = {name: _Holder.of(config) for name, config in _configs(model).items()}
        self._tensors: dict[int, _Kept] = {}
        self._named: dict[str, _Kept] = {}
        for name, tensor in named_tensors(model):
            if id(tensor) not in self._tensors:
                self._tensors[id(tensor)] = _Kept.of(tensor, values=values)
            self._named[name] = self._tensors[id(tensor)]

    def original(self, name: str) -> Tensor:
        """Return the value that a parameter or buffer had, on the CPU."""
        return self._named[name].original

    @torch.no_grad()
    def changes(self, model: nn.Module) -> Changes:
        """Count the parameters whose value differs. Tied parameters count once."""
        edited = total = 0
        for name, parameter in model.named_parameters():
            total += parameter.numel()
            edited += int((parameter.detach().cpu() != self.original(name)).sum())
        return Changes(edited=edited, parameters=total)

    def differences(self, model: nn.Module) -> Differences:
        """Return in words what differs in `model` beside the values of its tensors; it may be another of its kind."""
        found = Differences([], [], [])
        now = dict(model.named_modules())
        for name in {**self._modules, **now}:
            place = name or "the model"
            if name not in now or name not in self._modules:
                found.hooks.append(f"{'a new' if name in now else 'no'} module {place}")
            else:
                self._modules[name].compare(now[name], place, found)
        for name, tensor in model.named_parameters():
            if name in self._named:
                _compare_weight(self._named[name], tensor, name, found)
        configs = _configs(model)
        for name, holder in self._configs.items():
            found.attributes.extend(holder.other_attributes(configs.get(name), name))
        return found

    @torch.no_grad()
    def restore(self) -> list[str]:
        """Restore modules, hooks, modes, config, and every tensor that differs in a bit; return what still differs."""
        self.restore_all_but_values()
        wrong = {id(kept) for kept in self._tensors.values() if not kept.restore_value()}
        return [f"the value of {name}" for name, kept in self._named.items() if id(kept) in wrong]

    def restore_all_but_values(self) -> None:
        """Restore modules, hooks, modes and config; tensors keep their values."""
        for holder in (*self._modules.values(), *self._configs.values()):
            holder.restore()
        for kept in self._tensors.values():
            kept.restore_flags()

    def changed_values(self, model: nn.Module) -> list[str]:
        """Return the names of parameters and buffers that differ in a bit, in shape or dtype, or are not there."""
        now = dict(named_tensors(model))
        return [name for name in {**self._named, **now} if not _same(self._named.get(name), now.get(name))]

    def other_shape(self, model: Any) -> str:
        """Return in words what is other than it was: keys, shapes, dtypes, class; nothing if all are the same."""
        if not isinstance(model, nn.Module):
            return f"the model is {_short(model)}"
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
        ties = _ties(model)
        other = [name for name, partner in self._ties.items() if ties[name] != partner]
        return f"other tensors share their memory than did: {listed(other)}" if other else ""


def _short(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"


def _same(kept: _Kept | None, tensor: Tensor | None) -> bool:
    if kept is None or tensor is None or tensor.is_meta:
        return False
    return same_bits(kept.original, tensor.detach().cpu())


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer under each of its names, those that are saved nowhere included."""
    yield from itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )


def _shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}


def _ties(model: nn.Module) -> dict[str, str]:
    """Return for each parameter the first one with which it shares its memory."""
    first: dict[tuple[object, int], str] = {}
    return {
        name: first.setdefault((tensor.device, tensor.data_ptr()) if tensor.numel() else (name, 0), name)
        for name, tensor in model.named_parameters(remove_duplicate=False)
    }


def _configs(model: nn.Module) -> dict[str, Any]:
    """Return every config that a module or another config holds, each once, by what it is called."""
    found: dict[int, tuple[str, Any]] = {}

    def add(name: str, config: Any) -> None:
        if hasattr(config, "to_dict") and hasattr(config, "__dict__") and id(config) not in found:
            found[id(config)] = name, config
            for key, value in vars(config).items():
                add(f"{name}.{key}", value)

    for module in model.modules():
        for name in ("config", "generation_config"):
            add(f"the model's {name.replace('_', ' ')}", vars(module).get(name))
    return dict(found.values())


class _Kept(NamedTuple):
    """A parameter or buffer, and what it was."""

    tensor: Any
    memory: Tensor
    """The memory in which it lay, with its strides; others may share it."""
    original: Tensor
    """Its value, on the CPU."""
    requires_grad: bool
    gradient: Tensor | None
    hooks: dict[str, Any]

    @classmethod
    def of(cls, tensor: Tensor, *, values: bool) -> _Kept:
        memory = tensor.detach()
        value = memory.to("cpu", copy=True) if values else memory
        hooks = {kind: copy.copy(getattr(tensor, kind, None)) for kind in _WEIGHT_HOOKS}
        return cls(tensor, memory, value, tensor.requires_grad, tensor.grad, hooks)

    def restore_flags(self) -> None:
        """Restore everything but the value."""
        self.tensor.requires_grad_(self.requires_grad)
        self.tensor.grad = self.gradient
        for kind, hooks in self.hooks.items():
            if getattr(self.tensor, kind, None) != hooks:
                setattr(self.tensor, kind, copy.copy(hooks))

    def restore_value(self) -> bool:
        """Restore memory and value, where they differ; return whether they are as they were."""
        tensor, memory = self.tensor, self.memory
        place = (tensor.data_ptr(), tensor.stride(), tensor.shape, tensor.dtype, tensor.device)
        if place != (memory.data_ptr(), memory.stride(), memory.shape, memory.dtype, memory.device):
            tensor.data = memory
        if same_bits(memory.cpu(), self.original):
            return True
        memory.copy_(self.original)
        return same_bits(memory.cpu(), self.original)


def _compare_weight(kept: _Kept, now: Tensor, name: str, found: Differences) -> None:
    for kind in _WEIGHT_HOOKS:
        if len(getattr(now, kind, None) or ()) != len(kept.hooks[kind] or ()):
            found.hooks.append(f"{_hook_word(kind)} on the weight {name}")
    if now.grad is not None and kept.gradient is None:
        found.modes.append(f"a gradient left in {name}")
    if now.requires_grad != kept.requires_grad:
        found.modes.append(f"requires_grad of {name}")


def hooks_on(model: nn.Module) -> list[str]:
    """Return in words every hook on a model's modules and weights."""
    modules = [(name or "the model", module, tuple(vars(module))) for name, module in model.named_modules()]
    holders = [*modules, *((f"the weight {name}", weight, _WEIGHT_HOOKS) for name, weight in model.named_parameters())]
    return [
        f"{_hook_word(kind)} on {place}"
        for place, holder, kinds in holders
        for kind in kinds
        if kind.endswith("_hooks") and getattr(holder, kind, None)
    ]


def _hook_word(kind: str) -> str:
    return "a " + kind.strip("_").removesuffix("s").replace("_", " ")


def _checkpoints(module: Any) -> bool:
    return bool(getattr(module, "gradient_checkpointing", False))


class _Holder(NamedTuple):
    """An object with its class and its attributes, and what its containers held."""

    thing: Any
    kind: type
    forward: Any
    """What the class runs."""
    checkpoints: bool
    """Whether it recomputed its activations in backward passes."""
    attributes: dict[str, Any]
    contents: list[_Content]
    """Every container among the attributes, and in those."""

    @classmethod
    def of(cls, thing: Any) -> _Holder:
        attributes = dict(vars(thing))
        contents = [each for name, value in attributes.items() for each in _containers(name, value)]
        return cls(thing, type(thing), getattr(type(thing), "forward", None), _checkpoints(thing), attributes, contents)

    def compare(self, now: nn.Module, place: str, found: Differences) -> None:
        """Add to `found` in what a module, this one or its counterpart in another model, differs."""
        if type(now) is not self.kind:
            found.hooks.append(f"another class (a parametrization or a wrapper) of {place}")
        elif getattr(self.kind, "forward", None) is not self.forward:
            found.hooks.append(f"another `forward` in the class {self.kind.__name__}")
        if (now is self.thing and vars(now).get("forward") is not self.attributes.get("forward")) or (
            ("forward" in vars(now)) != ("forward" in self.attributes)
        ):
            found.hooks.append(f"a replaced `forward` on {place}")
        for each in self.contents:
            hooks = each.name.endswith("_hooks") and each.container is self.attributes[each.name]
            if hooks and not _same_hooks(each.held, vars(now).get(each.name)):
                found.hooks.append(f"{_hook_word(each.name)} on {place}")
        if now.training != self.attributes["training"]:
            found.modes.append(f"training mode of {place}")
        if _checkpoints(now) != self.checkpoints:
            found.modes.append(f"gradient checkpointing of {place}")
        found.attributes.extend(self.other_attributes(now, place))

    def other_attributes(self, now: Any, place: str) -> Iterator[str]:
        """Yield in words which attributes are others; where `now` is another object, as far as they can be compared."""
        if now is None:
            yield f"no {place}"
            return
        attributes, same = vars(now), now is self.thing
        refilled = {each.name for each in self.contents if same and not each.is_same()}
        for name in {**self.attributes, **attributes}:
            if name in _LOOKED_AT_ELSEWHERE or "_hooks" in name:
                continue
            before, value = self.attributes.get(name, _NONE), attributes.get(name, _NONE)
            if name in refilled or not _equal(before, value, same=same):
                yield f"`{name}` of {place}"

    def restore(self) -> None:
        """Restore attributes, the very containers that were there among them: handles of hooks point to these."""
        if type(self.thing) is not self.kind:
            self.thing.__class__ = self.kind
        if getattr(self.kind, "forward", None) is not self.forward:
            self.kind.forward = self.forward  # type: ignore[attr-defined]
        for each in self.contents:
            if not each.is_same():
                each.refill()
        now = vars(self.thing)
        if now.keys() != self.attributes.keys() or any(now[key] is not v for key, v in self.attributes.items()):
            now.clear()
            now.update(self.attributes)


_NONE = object()


class _Content(NamedTuple):
    """A container, and what it held."""

    name: str
    """The attribute that it, or the container that it is in, belongs to."""
    container: Any
    held: Any

    def is_same(self) -> bool:
        """Whether it holds the same objects, in the same order."""
        now, held = self.container, self.held
        if not now or len(now) != len(held):
            return len(now) == len(held)
        if isinstance(now, set):
            return bool(now == held)
        keys = not isinstance(now, dict) or list(now) == list(held)
        left, right = (each.values() if isinstance(each, dict) else each for each in (now, held))
        return keys and all(map(operator.is_, left, right))

    def refill(self) -> None:
        """Let it hold what it held."""
        self.container.clear()
        (self.container.extend if isinstance(self.container, list) else self.container.update)(self.held)


def _containers(name: str, value: Any, depth: int = 4) -> Iterator[_Content]:
    if isinstance(value, (dict, set, list)):
        yield _Content(name, value, copy.copy(value))
        for inner in value.values() if isinstance(value, dict) else value:
            if depth:
                yield from _containers(name, inner, depth - 1)


def _same_hooks(before: Any, now: Any) -> bool:
    left, right = (list(hooks.values() if isinstance(hooks, dict) else hooks or ()) for hooks in (before, now))
    return left == right


def _equal(before: Any, now: Any, *, same: bool) -> bool:
    """Whether a value is as it was; of another object only plain values can be compared."""
    if before is now:
        return True
    if before is _NONE or now is _NONE:
        return False
    if type(before) is type(now) and isinstance(before, _PLAIN):
        return bool(before == now)
    return not same
