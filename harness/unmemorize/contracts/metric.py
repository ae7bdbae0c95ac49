"""What a metric announces and what it yields: readings and measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from unmemorize.contracts.testbed import Window

Statistic = Callable[["Tensor", "Tensor"], "Tensor"]
"""Something to keep of the logits of a pass: (P, V) float32 logits and (P,) targets to (P,) float32.

It must be hashable (a function, or an instance of a frozen class), and is called on a few positions at a time.
"""


class Reading(NamedTuple):
    """A teacher-forced pass that a metric is going to ask for."""

    set: str
    """Name of the set."""
    window: Window | None = None
    """The extraction check whose rows are read, or none for the whole sequences."""
    statistic: Statistic | None = None
    """What to keep of the logits beyond the losses and the arg-max."""


Kind = Literal["memorization", "utility", "robustness", "cost"]
Direction = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of a metric on one set of sequences."""

    set: str
    """The set it was measured on: `forget`, `forget_unseen`, `retain`, `holdout:NAME`; `holdout` is their mean."""
    value: float
    """The value, within the metric's range."""
    count: int
    """How many sequences (or tokens) the value stands on."""
    part: str = "all"
    """`all`, `select` and `report` (the two halves), `copies=10` (a duplication class), or the metric's own."""
    low: float | None = None
    """Lower end of the 95 % interval over sequences, where there is one."""
    high: float | None = None
    """Upper end."""
    per_sequence: tuple[float, ...] | None = None
    """The value of every counted sequence."""
    ids: tuple[int, ...] | None = None
    """The ids of the counted sequences."""
    metric: str | None = None
    """A label other than the metric's own (`recovered@50+50` beside `extraction@50+50`)."""
    direction: Direction | None = None
    """The direction, where it differs from the metric's own."""

    @classmethod
    def percent(cls, name: str, hits: int, count: int) -> Measurement:
        """Return `hits` among `count` in percent on the set `name`, with the 95 % Wilson interval; NaN of none."""
        share = hits / count if count else float("nan")
        low, high = _wilson_interval(share, count)
        return cls(set=name, value=100 * share, count=count, low=100 * low, high=100 * high)


def mean_over_sequences(
    name: str, ids: Sequence[int], values: Sequence[float], *, top: float = 100.0, **labels: Any
) -> Measurement:
    """Return the mean of one value per sequence, with its 95 % interval and the values themselves.

    Args:
        name: the set.
        ids: the id of each sequence.
        values: one value per sequence, from 0 to `top`. Where all are 0 or `top` the interval is Wilson's, otherwise
            the normal one of a mean.
        top: the largest possible value, 100 for percentages.
        labels: further fields of `Measurement`.
    """
    count = len(values)
    mean = sum(values) / count if count else float("nan")
    if set(values) <= {0.0, top}:
        low, high = (top * end for end in _wilson_interval(mean / top, count))
    else:
        half = 1.96 * (sum((value - mean) ** 2 for value in values) / max(1, count - 1) / count) ** 0.5
        low, high = mean - half, mean + half
    return Measurement(
        set=name, value=mean, count=count, low=low, high=high,
        per_sequence=tuple(values), ids=tuple(ids), **labels,
    )  # fmt: skip


def _wilson_interval(share: float, count: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share out of `count` (Wilson 1927); NaN where nothing was counted."""
    if count == 0:
        return float("nan"), float("nan")
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
