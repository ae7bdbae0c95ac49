"""The logits of a few sequences, which show a changed testbed where no list of its parts does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unmemorize.contracts.bits import same_bits
from unmemorize.models.caller import plain_torch
from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.testbed import Testbed

ROWS = 2
"""Sequences whose logits are compared."""
_CLOSE = 1e-3
"""Difference, in units of the largest logit, that an accelerator may make."""


class Canary:
    """The logits of a testbed's model for its first few sequences, when this was made.

    On the CPU they must be the same bit by bit, elsewhere as good as the same.
    """

    def __init__(self, testbed: Testbed) -> None:
        self._model = testbed.model
        rows = next((rows for rows in testbed.sets().values() if len(rows)), None)
        self._ids = None if rows is None else rows.select(slice(0, ROWS)).cut().inputs().to(testbed.device)
        self._expected = self.logits(testbed.model)

    def logits(self, model: PreTrainedModel) -> Tensor | None:
        """Return (rows, positions, vocabulary) logits on the CPU; none of a testbed without sequences."""
        if self._ids is None:
            return None
        with plain_torch(), torch.no_grad(), evaluation_mode(model):
            said: Tensor = model(input_ids=self._ids, attention_mask=torch.ones_like(self._ids), use_cache=False).logits
            return said.detach().cpu()

    def differences(self) -> list[str]:
        """Return in words whether the logits are others now."""
        try:
            # A library may choose another order of summation once: what has changed says it again.
            said = next((now for _ in range(2) if self.same(now := self.logits(self._model), self._expected)), False)
        except Exception as error:  # whatever was done to it
            return [f"the model does not run any more: {type(error).__name__}: {error}"]
        return [] if said is not False else ["the logits of its own sequences"]

    def same(self, now: Tensor | None, before: Tensor | None) -> bool:
        """Return whether two answers are the same."""
        if now is None or before is None:
            return now is before
        if self._ids is not None and self._ids.device.type == "cpu":
            return same_bits(now, before)
        largest = float(before.float().abs().nan_to_num(posinf=0.0).max())
        return torch.allclose(now.float(), before.float(), rtol=_CLOSE, atol=_CLOSE * largest, equal_nan=True)
