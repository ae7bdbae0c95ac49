"""What metrics over an extraction check have in common: its lengths, its name, and the two forget sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from unmemorize import Evaluation, Metric, StrictConfig, Testbed, Window


class WindowConfig(StrictConfig):
    """The lengths of the check. Defaults: the testbed's own (TinyMem and the paper: 50 + 50; Pythia: 32 + 40)."""

    prompt: Annotated[int, Field(ge=1)] | None = None
    """Tokens shown to the model (k in the paper), or the testbed's own."""
    suffix: Annotated[int, Field(ge=1)] | None = None
    """Tokens that must come back (n - k in the paper), or the testbed's own."""


class WindowMetric(Metric):
    """A metric that shows a prompt and looks at the suffix."""

    Config: ClassVar[type[StrictConfig]] = WindowConfig

    def label(self, testbed: Testbed) -> str:
        """Return `NAME@PROMPT+SUFFIX`, and then the settings that change the value's meaning."""
        return self.labelled(self.name, testbed)

    def labelled(self, name: str, testbed: Testbed) -> str:
        """Return `name` with the lengths and settings of this metric."""
        window = self.window(testbed)
        return ",".join([f"{name}@{window.prompt}+{window.suffix}", *self.settings()])

    def settings(self) -> list[str]:
        """Return the settings that stand in the label beside the lengths."""
        return []

    def window(self, testbed: Testbed) -> Window:
        """Return the lengths that are checked."""
        return Window(self.config.prompt or testbed.window.prompt, self.config.suffix or testbed.window.suffix)


def forget_sets(testbed: Testbed) -> Iterator[str]:
    """Yield the names of the memorized sets that are there: `forget`, and separately `forget_unseen`."""
    present = testbed.sets()
    yield from (name for name in ("forget", "forget_unseen") if name in present)


def extractable(evaluation: Evaluation, name: str, window: Window) -> tuple[list[int], list[float]]:
    """Return the ids of the rows that count, and 100 for each that is extractable, 0 for the others.

    Real decoding decides where a decode-time method is active, one teacher-forced pass otherwise.
    """
    extraction = evaluation.extraction(name, window, generate=bool(evaluation.testbed.decoding))
    return extraction.ids.tolist(), [100.0 * hit for hit in extraction.extractable.tolist()]
