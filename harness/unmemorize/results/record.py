"""One record: what came of one cell, with everything needed to run it again."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from unmemorize.files.privacy import public
from unmemorize.untrusted import plain

BASE = "base"
"""The name under which the unmitigated testbed is measured."""

Status = Literal["done", "failed", "skipped"]


_FREE = (
    *("testbed", "provider_config", "fingerprint", "method_config", "metrics", "flags", "notes", "testbed_facts"),
    *("environment", "reason", "traceback"),
)
"""Fields in which paths may stand."""
_LONGEST = {"reason": 2_000, "traceback": 20_000}
"""Characters that are kept."""


class _Row(BaseModel):
    # Records of newer versions may carry more fields; an older reader keeps what it knows.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Value(_Row):
    """One metric on one set (and part of it), before and after the method acted."""

    metric: str
    """The metric's label, lengths included: `extraction@50+50`."""
    kind: Literal["memorization", "utility", "robustness", "cost"]
    direction: Literal["lower", "higher"]
    """Which way is better."""
    set: str
    """`forget`, `forget_unseen`, `retain`, `holdout:NAME`, or `holdout` for the mean over hold-outs."""
    part: str
    """`all`, the halves `select` and `report`, `copies=10` for a duplication class, or the metric's own."""
    count: int
    """Sequences or tokens that the value stands on."""
    before: float | None
    before_low: float | None
    before_high: float | None
    after: float | None
    after_low: float | None
    after_high: float | None


class PluginOrigin(_Row):
    """Where a plugin's class came from."""

    name: str
    """Registered name of the class."""
    plugin: str
    distribution: str
    version: str


class Record(_Row):
    """What came of one cell. Records are published: they hold no home folder, no absolute path and no token."""

    key: str
    """Content hash of everything that can change the cell's numbers."""
    key_version: int
    status: Status
    finished_at: str
    """UTC time, ISO 8601."""
    suite: str
    testbed: str
    """The testbed's name in the suite."""
    provider: PluginOrigin
    provider_config: dict[str, Any]
    fingerprint: dict[str, str]
    """Hashes of files and revisions that the provider's config points at."""
    method: str
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
    seed: int
    memorization: str
    """Label of the headline memorization metric (its set is `forget`)."""
    utility: str
    """Label of the headline utility metric (its set is `holdout`)."""
    values: list[Value]
    curve: list[dict[str, float]]
    """Headline metrics after each epoch, for methods that train."""
    seconds: dict[str, float]
    """Seconds by phase: `prepare`, `attribute`, `train`, `edit`; evaluation is in none of them."""
    total_seconds: float | None
    peak_memory: int | None
    """Bytes: peak device memory on an accelerator, peak resident set of the process otherwise."""
    extra_memory: int | None
    """Bytes of `peak_memory` above the level at which the method started."""
    parameters: int | None
    """Number of parameters in the model."""
    edited: int | None
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

    @field_validator(*_FREE)
    @classmethod
    def _without_private(cls, value: Any) -> Any:
        return public(value)

    @field_validator("reason", "traceback")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else plain(value, _LONGEST[str(info.field_name)])
