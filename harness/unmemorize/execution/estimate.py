"""What a method would take on a loaded testbed, and whether that fits, before anything is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from unmemorize.contracts.answers import ask
from unmemorize.contracts.context import Context
from unmemorize.execution.memory import free_bytes
from unmemorize.execution.probe import Rates, activation_bytes, probe
from unmemorize.training.losses import LOGITS_AT_ONCE, vocabulary_of

if TYPE_CHECKING:
    from unmemorize.contracts.cost import Cost
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.testbed import Testbed

_GIB = 2**30
_LOGITS_BYTES = 16
"""A logit in float32, its exponential, and the gradients of both."""


class Need(NamedTuple):
    """The memory that a method needs beyond the model, and what is free."""

    device: float
    """Bytes beside the model's weights, activations included."""
    cpu: float
    """Bytes in main memory beyond that; where the model is on the CPU, both draw on the same."""
    free_device: int
    free_cpu: int
    on_cpu: bool
    """Whether the model is in main memory."""

    @property
    def fits(self) -> bool:
        """Whether what is needed is free."""
        return not self._shortage()

    def reason(self, advice: str) -> str:
        """Return why it does not fit, and what to do about it."""
        needed, free, where = self._shortage() or (0.0, 0, "")
        return (
            f"does not fit: needs about {needed / _GIB:.3g} GiB {where}, {free / _GIB:.3g} GiB free; "
            f"{advice or 'use a smaller model or a larger machine'}"
        )

    def _shortage(self) -> tuple[float, int, str] | None:
        if self.on_cpu:
            both = self.device + self.cpu
            return (both, self.free_cpu, "of main memory") if both > self.free_cpu else None
        if self.device > self.free_device:
            return self.device, self.free_device, "on the device"
        return (self.cpu, self.free_cpu, "of main memory") if self.cpu > self.free_cpu else None


class CostEstimate(NamedTuple):
    """What a method would take here."""

    seconds: float
    need: Need
    reason: str | None
    """Why it does not fit, or None if it does."""
    advice: str
    """What to set where that takes too long."""


def estimate_cost(
    testbed: Testbed, method: Method, rates: Rates | None = None, *, checkpointing: bool = False, offload: bool = False
) -> CostEstimate | None:
    """Return the seconds and the memory that `method` would take on `testbed`, or None if it does not say its cost.

    Args:
        testbed: a loaded testbed; its model is left as it was.
        method: a method with its settings; `supports` must have answered that it can act.
        rates: what a probe of the testbed has found; by default it is probed now.
        checkpointing: whether blocks recompute their activations in backward passes.
        offload: whether scores, masks and copies of weights are kept in main memory.

    Cost: a forward pass and two backward passes over at most 512 tokens (4096 on an accelerator), three
    times each.
    """
    cost = ask(method, "cost", testbed.shown_to(method.name, method.needs))
    if cost is None:
        return None
    context = Context(checkpointing=checkpointing, offload=offload)
    need = needed(testbed, cost, context)
    return CostEstimate(
        seconds=_seconds(cost, rates or probe(testbed, context)),
        need=need,
        reason=None if need.fits else need.reason(advice_for(cost, need, context)),
        advice=cost.advice,
    )


def needed(testbed: Testbed, cost: Cost, context: Context, activations: float | None = None) -> Need:
    """Return the memory that a declared cost comes to on this testbed, and what is free.

    Args:
        testbed: a loaded testbed.
        cost: what a method declares.
        context: says whether blocks are recomputed, and what is offloaded.
        activations: what `activation_bytes` found, where that is known already.
    """
    held = 0.0
    if cost.held_tokens:
        logits = min(cost.held_tokens * vocabulary_of(testbed.model), LOGITS_AT_ONCE) * _LOGITS_BYTES
        training = cost.training_tokens > 0
        each = activation_bytes(testbed, context, training=training) if activations is None else activations
        held = cost.held_tokens * each + logits
    held += cost.block_bytes / (max(1, len(testbed.mlps)) if context.checkpointing else 1)
    devices = {parameter.device for parameter in testbed.model.parameters()}
    return Need(
        device=cost.device_bytes + held + (0 if context.offload else cost.offloadable_bytes),
        cpu=cost.cpu_bytes + (cost.offloadable_bytes if context.offload else 0),
        free_device=sum(free_bytes(device) for device in devices),
        free_cpu=free_bytes(torch.device("cpu")),
        on_cpu=all(device.type == "cpu" for device in devices),
    )


def advice_for(cost: Cost, need: Need, context: Context) -> str:
    """Return what would make a method fit: its own advice, and the switches of a run that are still off."""
    objectives = [cost.advice] if cost.advice else []
    if not context.checkpointing and need.device > 2 * (cost.device_bytes + cost.offloadable_bytes):
        objectives.append(_switch("checkpointing"))
    if not context.offload and cost.offloadable_bytes and not need.on_cpu:
        objectives.append(_switch("offload"))
    return "; or ".join(objectives)


def _switch(name: str) -> str:
    return f"set run.{name}=true in a suite, {name}=True in mitigate(...), --{name} on its command line"


def _seconds(cost: Cost, rates: Rates) -> float:
    return (
        cost.forward_tokens * rates.forward
        + cost.backward_tokens * rates.backward
        + cost.training_tokens * rates.training
        + cost.sweeps * rates.sweep
        + cost.multiplications * rates.multiplication
    )
