"""Find the MLPs of an architecture that no layout describes, by what its modules do in a tiny forward pass.

An MLP is, in each block, a linear map that feeds the residual stream and whose input comes from one or two other linear
maps, all at the same position; attention and recurrences mix positions. What is found is checked on the model's output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unmemorize.contracts.layout import MLP, Layout
from unmemorize.errors import LayoutError
from unmemorize.models.layouts import is_input_first, mlps_of
from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POSITIONS = 6
_WITHIN = 0.02
"""Relative difference that rounding in half precision stays below."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def discover(model: PreTrainedModel) -> Layout:
    """Return the row that describes a model's MLPs, found by their structure.

    Cost: four forward passes of six tokens. The model is left as it was.

    Raises:
        LayoutError: some block has no MLP of this structure, or an MLP that only some tokens pass.
    """
    with evaluation_mode(model):
        name, blocks = _blocks(model)
        mlps = dict.fromkeys(names for block in _linear_maps(model, blocks) for names in block.mlps())
        layout = Layout(model_types=(model.config.model_type,), blocks=name, mlps=tuple(mlps))
        _check(model, mlps_of(model, layout))
    return layout


@torch.no_grad()
def _blocks(model: PreTrainedModel) -> tuple[str, list[nn.Module]]:
    """Return the longest list of modules that hand the residual stream from one to the next, and its name."""
    lists = {name: list(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    entered: dict[nn.Module, list[Tensor]] = {}
    left: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tensors = [value for value in (*inputs, *named.values()) if isinstance(value, Tensor)]
        entered.setdefault(module, []).extend(tensors[:1])
        left[module] = _hidden(output)

    with ExitStack() as stack:
        for module in {module for modules in lists.values() for module in modules}:
            stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        _run(model)

    def hands_on(modules: list[nn.Module]) -> bool:
        if not modules or any(len(entered.get(module, [])) != 1 for module in modules):
            return False
        pairs = pairwise(modules)
        streams = all(isinstance(left[m], Tensor) and left[m].shape == entered[m][0].shape for m in modules)
        return streams and all(torch.equal(left[one], entered[other][0]) for one, other in pairs)

    chains = {name: modules for name, modules in lists.items() if hands_on(modules)}
    if not chains:
        raise _unfound(model, "it has no list of blocks that hand the residual stream on")
    return max(chains.items(), key=lambda chain: len(chain[1]))


class _Map(NamedTuple):
    """A linear map that ran: its input, with the graph that it came from, and its output, where the graph is cut."""

    name: str
    input: Tensor
    output: Tensor


@dataclass
class _Block:
    """What one block did in a pass whose graph is cut behind every linear map."""

    model: PreTrainedModel
    number: int
    module: nn.Module
    maps: list[_Map] = field(default_factory=list)
    output: Tensor = field(default_factory=lambda: torch.empty(0))

    def mlps(self) -> list[tuple[str, ...]]:
        """Return the names of the matrices of each MLP, `down` last."""
        self._refuse_stacks()
        found = [(*self._producers(down), down.name) for down in self.maps if self._feeds_residual(down)]
        whole = [names for names in found if len(names) > 1]
        if not whole:
            raise _unfound(self.model, f"block {self.number} has no linear map that feeds the residual stream and has "
                                       "its input from linear maps at the same position")  # fmt: skip
        if any(len(names) > 3 for names in whole):
            raise _unfound(self.model, f"in block {self.number}, more than two maps feed {whole[0][-1]}")
        self._refuse_idle_maps()
        return whole

    def _refuse_stacks(self) -> None:
        for name, module in self.module.named_modules():
            if not isinstance(module, _CONVOLUTIONS) and any(p.ndim > 2 for p in module.parameters(recurse=False)):
                raise _unfound(self.model, f"block {self.number} keeps stacked weights in {name}, as experts do")

    def _refuse_idle_maps(self) -> None:
        ran = Counter(one.name for one in self.maps)
        for name, module in self.module.named_modules():
            if isinstance(module, nn.Linear) and ran[name] != 1:
                raise _unfound(self.model, f"block {self.number} does not run {name} once in each pass, as experts are")

    def _feeds_residual(self, one: _Map) -> bool:
        width = one.output.shape[-1] == self.output.shape[-1]
        return width and self._positions(self.output, one.output) == {_POSITIONS - 1}

    def _producers(self, down: _Map) -> tuple[str, ...]:
        """Return the maps whose outputs make the input of `down`; none if another position has a part in it."""
        reached = {one.name: self._positions(down.input, one.output) for one in self.maps if one is not down}
        if any(positions - {_POSITIONS - 1} for positions in reached.values()):
            return ()
        return tuple(name for name, positions in reached.items() if positions)

    @staticmethod
    def _positions(result: Tensor, source: Tensor) -> set[int]:
        """Return the positions of `source` on which the last position of `result` depends."""
        if not result.requires_grad:
            return set()
        last = result.reshape(_POSITIONS, -1)[-1]
        weights = torch.linspace(0.5, 1.5, len(last), dtype=last.dtype, device=last.device)
        (gradient,) = torch.autograd.grad(
            (last * weights).sum(), source, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return set(gradient.reshape(_POSITIONS, -1).any(dim=1).nonzero().flatten().tolist())


def _linear_maps(model: PreTrainedModel, modules: list[nn.Module]) -> list[_Block]:
    """Run the model once, and return what the linear maps of every block did."""
    blocks = [_Block(model, number, module) for number, module in enumerate(modules)]
    with ExitStack() as stack, torch.enable_grad():
        for block in blocks:
            for name, module in block.module.named_modules():
                weight = module._parameters.get("weight")
                if weight is not None and weight.ndim == 2:
                    stack.callback(module.register_forward_hook(_cutting(block, name)).remove)
            stack.callback(block.module.register_forward_hook(_keeping(block)).remove)
        _run(model)
    return blocks


def _cutting(block: _Block, name: str) -> Any:
    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        weight = module.weight.T if is_input_first(module) else module.weight
        if not isinstance(output, Tensor) or output.numel() != _POSITIONS * weight.shape[0]:
            return None  # an expert sees some of the positions
        if inputs[0].shape[-1] != weight.shape[1] or not _close(linear(inputs[0], weight, module.bias), output):
            return None
        leaf = output.detach().requires_grad_()
        block.maps.append(_Map(name, inputs[0], leaf))
        return leaf.clone()  # some models go on in place

    return hook


def _keeping(block: _Block) -> Any:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        block.output = _hidden(output)
        whole = block.output.detach()
        return whole if isinstance(output, Tensor) else (whole, *output[1:])

    return hook


@torch.no_grad()
def _check(model: PreTrainedModel, mlps: tuple[MLP, ...]) -> None:
    """Compare the model without one neuron of each MLP's `down` with the model in which this neuron is silent."""
    strongest: dict[int, int] = {}

    def listen(index: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            strength = inputs[0].reshape(-1, inputs[0].shape[-1]).float().norm(dim=0)
            strongest[index] = int((strength * mlps[index].down.by_input().float().norm(dim=1)).argmax())

        return hook

    with ExitStack() as stack:
        for index, mlp in enumerate(mlps):
            stack.callback(mlp.down.module.register_forward_pre_hook(listen(index)).remove)
        whole = _run(model)
    neurons = [strongest[index] for index in range(len(mlps))]
    with ExitStack() as stack:
        for mlp, neuron in zip(mlps, neurons, strict=True):
            stack.callback(mlp.down.module.register_forward_pre_hook(_silencing(neuron)).remove)
        expected = _run(model)
    with ExitStack() as stack:
        for mlp, neuron in zip(mlps, neurons, strict=True):
            stack.enter_context(_without(mlp.down.by_input()[neuron]))
        found = _run(model)
    if _close(expected, whole, within=0.0) or not _close(found - whole, expected - whole):
        raise _unfound(model, "removing a neuron does not change its output by what this neuron adds")


def _silencing(neuron: int) -> Any:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        silent = inputs[0].clone()
        silent[..., neuron] = 0.0
        return (silent, *inputs[1:])

    return hook


@contextmanager
def _without(row: Tensor) -> Iterator[None]:
    before = row.clone()
    row.zero_()
    try:
        yield
    finally:
        row.copy_(before)


def _run(model: PreTrainedModel) -> Tensor:
    embedding: Any = model.get_input_embeddings()
    ids = torch.arange(3, 3 + _POSITIONS, device=embedding.weight.device)[None] % embedding.weight.shape[0]
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    except Exception as error:  # whatever the code of an unknown model raises
        raise _unfound(model, f"a pass over {_POSITIONS} tokens raises {type(error).__name__}: {error}") from error
    return logits.float()


def _close(one: Tensor, other: Tensor, within: float = _WITHIN) -> bool:
    return bool((one.float() - other.float()).norm() <= within * other.float().norm())


def _hidden(output: Any) -> Any:
    return output if isinstance(output, Tensor) else output[0]


def _unfound(model: PreTrainedModel, reason: str) -> LayoutError:
    return LayoutError.unfound(model.config.model_type, reason)
