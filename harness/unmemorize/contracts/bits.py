"""Tensors bit by bit: NaN is itself, and -0.0 is not 0.0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_WIDTH = 1024


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors have one shape, dtype and device, and the same bits."""
    import torch

    if (left.shape, left.dtype, left.device) != (right.shape, right.dtype, right.device):
        return False
    return torch.equal(_words(left), _words(right))


def _words(tensor: Tensor) -> Tensor:
    import torch

    plain = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return plain.contiguous().view(words[plain.element_size()])


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """Sums over the bits of a tensor, by row and by column of a table of its words: the same for the same tensor.

    A change of one word always shows. Memory: a thousandth of the tensor's.
    """

    kind: tuple[object, ...]
    sums: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Fingerprint:
        """Take it, where the tensor is."""
        import torch

        flat = _words(tensor).reshape(-1)
        flat = flat if flat.device.type in ("cpu", "cuda") else flat.cpu()
        wide = 8 // flat.element_size()
        if wide > 1 and not flat.storage_offset() % wide:  # words of 8 bytes are summed much faster
            whole = len(flat) // wide * wide
            parts = [flat[:whole].view(torch.int64), flat[whole:]]
        else:
            parts = [flat]
        table = parts[0][: len(parts[0]) // _WIDTH * _WIDTH].view(-1, _WIDTH)
        rest = [parts[0][table.numel() :].clone(), *(part.clone() for part in parts[1:])]
        kind = (tuple(tensor.shape), tensor.dtype, tensor.device)
        return cls(kind, (table.sum(0, dtype=torch.int64), table.sum(1, dtype=torch.int64), *rest))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint) or self.kind != other.kind:
            return False
        import torch

        return all(torch.equal(left, right) for left, right in zip(self.sums, other.sums, strict=True))

    __hash__ = None  # type: ignore[assignment]


def fingerprints(tensors: Iterable[Tensor]) -> list[Fingerprint]:
    """Return the fingerprint of each tensor."""
    return [Fingerprint.of(tensor) for tensor in tensors]


def bits_of(value: Any) -> list[Fingerprint]:
    """Return the fingerprint of every tensor in a named tuple, and in the tables among its fields."""
    import torch

    if isinstance(value, torch.Tensor):
        return [Fingerprint.of(value)]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [bits for inner in value for bits in bits_of(inner)] if isinstance(value, (tuple, list)) else []
