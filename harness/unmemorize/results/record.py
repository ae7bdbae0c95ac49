"""One record: what came of one cell, with everything needed to run it again; impossible ones cannot be made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from unmemorize.contracts.metric import Direction, Kind
from unmemorize.files.privacy import public
from unmemorize.untrusted import plain

BASE = "base"
"""The name under which the unmitigated testbed is measured."""

_SLACK = 1e-6
"""By how much a number may be outside of what it should be inside of, relative to the limit: they are rounded."""

Status = Literal["done", "failed", "skipped"]

_LARGEST = 2**63 - 1
Integer = Annotated[int, Field(ge=-_LARGEST - 1, le=_LARGEST)]
"""What a column of 64-bit integers holds."""
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Key = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
"""What the name of a file can hold."""
Time = Annotated[str, Field(pattern=r"^\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(\.\d+)?(\+00:00|Z)$")]


_SETTINGS = ("provider_config", "fingerprint", "method_config", "metrics")
"""Fields from which a cell is run again: their paths stay, but for homes and the user's name."""
_FREE = ("testbed", "flags", "notes", "testbed_facts", "environment", "reason", "traceback")
"""Other fields in which paths may stand."""
_LONGEST = {"reason": 2_000, "traceback": 20_000}
"""Characters that are kept."""


class _Row(BaseModel):
    # Records of newer versions may carry more fields; an older reader keeps what it knows.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Value(_Row):
    """One metric on one set (and part of it), before and after the method acted."""

    metric: Name
    """The metric's label, lengths included: `extraction@50+50`."""
    kind: Kind
    direction: Direction
    """Which way is better."""
    set: Name
    """`forget`, `forget_unseen`, `retain`, `holdout:NAME`, or `holdout` for the mean over hold-outs."""
    part: Name
    """`all`, the halves `select` and `report`, `copies=10` for a duplication class, or the metric's own."""
    count: Count
    """Sequences or tokens that the value stands on."""
    before: float | None
    before_low: float | None
    before_high: float | None
    after: float | None
    after_low: float | None
    after_high: float | None
    lowest: float | None = None
    """The lowest value that the metric can have; null where there is no limit, and in records of 0.1.0."""
    highest: float | None = None
    """The highest value."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _check_between("before", self.before, self.lowest, self.highest, "range")
        _check_between("after", self.after, self.lowest, self.highest, "range")
        _check_between("before", self.before, self.before_low, self.before_high, "interval")
        _check_between("after", self.after, self.after_low, self.after_high, "interval")
        return self


def _check_between(name: str, value: float | None, low: float | None, high: float | None, what: str) -> None:
    if value is None:
        value = low  # so that of two ends the lower is not above the higher
    if value is None or ((low is None or low <= value) and (high is None or value <= high)):
        return
    if _above(low, value) or _above(value, high):
        raise ValueError(f"{name} = {value:g} is outside its {what}, {low} to {high}")


def _above(number: float | None, limit: float | None) -> bool:
    return number is not None and limit is not None and number > limit + _SLACK * max(1.0, abs(limit))


class PluginOrigin(_Row):
    """Where a plugin's class came from."""

    name: Name
    """Registered name of the class."""
    plugin: str
    distribution: str
    version: str
    code: str | None = None
    """Hash of the source files of the class's package or file."""


class RecordFields(_Row):
    """What came of one cell, as it was written."""

    key: Key
    """Content hash of everything that can change the cell's numbers."""
    key_version: Integer
    status: Status
    finished_at: Time
    """UTC time, ISO 8601."""
    suite: Name
    testbed: Name
    """The testbed's name in the suite."""
    provider: PluginOrigin
    provider_config: dict[str, Any]
    fingerprint: dict[str, str]
    """Hashes of files and revisions that the provider's config points at."""
    method: Name
    """The method's name, or `base`."""
    method_origin: PluginOrigin | None
    method_config: dict[str, Any]
    stage: str
    """`train`, `finetune`, `unlearn`, `decode`, or `-` for the base."""
    needs: list[str]
    """The data that the method was shown."""
    metrics: dict[str, dict[str, Any]]
    """Metric settings by metric name."""
    metric_origins: list[PluginOrigin]
    seed: Integer
    memorization: str
    """Label of the headline memorization metric (its set is `forget`)."""
    utility: str
    """Label of the headline utility metric (its set is `holdout`)."""
    values: list[Value]
    curve: list[dict[str, float | None]]
    """Headline metrics after each epoch, for methods that train."""
    seconds: dict[str, Seconds]
    """Seconds by phase: `prepare`, `attribute`, `train`, `edit`; evaluation is in none of them."""
    total_seconds: Seconds | None
    peak_memory: Count | None
    """Bytes: peak device memory on an accelerator, peak resident set of the process otherwise."""
    extra_memory: Count | None
    """Bytes of `peak_memory` above the level at which the method started."""
    parameters: Count | None
    """Number of parameters in the model."""
    edited: Count | None
    """Number of parameters whose value the method changed."""
    flags: list[str]
    """Flags that the method or the core set while it ran (`approximate-attribution`)."""
    notes: dict[str, Any]
    """What the method reported about its work."""
    testbed_facts: dict[str, Any]
    data_digest: str | None
    """Hash of every set of sequences in the testbed."""
    environment: dict[str, Any]
    """Versions, platform, device, threads."""
    reason: str | None
    """Why the cell was skipped or failed, in the words a user can act on."""
    traceback: str | None
    deaths: Count = 0
    """How often the process in which the cell ran has died."""
    per_sequence_digest: str | None = None
    """Hash of the file that holds the values of single sequences, where there is one."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        slots = [(value.metric, value.set, value.part) for value in self.values]
        if len(set(slots)) < len(slots):
            raise ValueError("a value is there twice")
        if self.status == "done" and all(value.before is value.after is None for value in self.values):
            raise ValueError("the cell is done and has no values")
        if (self.method == BASE) != (self.method_origin is None):
            raise ValueError("the base, and nothing else, has no method_origin")
        if self.edited is not None and self.parameters is not None and self.edited > self.parameters:
            raise ValueError(f"{self.edited} of {self.parameters} parameters were edited")
        return self


class Record(RecordFields):
    """What came of one cell. Records are published: they hold no home folder, no user's name and no token."""

    @field_validator(*_FREE)
    @classmethod
    def _without_private(cls, value: Any) -> Any:
        return public(value)

    @field_validator(*_SETTINGS)
    @classmethod
    def _without_homes(cls, value: Any) -> Any:
        return public(value, whole_paths=True)

    @field_validator("reason", "traceback")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else plain(value, _LONGEST[str(info.field_name)])

    def as_failed(self, reason: str) -> Record:
        """Return this record without what was measured, as that of a cell that failed."""
        nothing = dict.fromkeys(("total_seconds", "peak_memory", "extra_memory", "parameters", "edited"))
        empty: dict[str, Any] = {"values": [], "curve": [], "seconds": {}, "flags": [], "notes": {}}
        return self.model_copy(update={"status": "failed", "reason": reason, **nothing, **empty})
