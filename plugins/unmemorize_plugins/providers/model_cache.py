"""Trained models on disk: one folder each, whole or absent, and rebuilt where it is damaged."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.toolkit import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHTS, _FACTS = "model.safetensors", "facts.json"


class ModelCache:
    """The folder of one trained model: its weights, and facts about its training with the weights' hash."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which need not exist."""
        self.folder = folder

    def read(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """Load the weights into `model` and return the facts; None if the folder is absent or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        try:
            facts = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))
            weights = self.folder / _WEIGHTS
            if facts.pop("weights") != digest_of([weights]):
                return None
            load_model(model, weights)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError):
            return None
        return dict(facts)

    def write(self, model: PreTrainedModel, facts: dict[str, Any]) -> None:
        """Put the model into the folder, all at once.

        Where another process has put it there in the meantime, one of the two stays: they are the same model.
        """
        from safetensors.torch import save_model

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f"{self.folder.name}.", dir=self.folder.parent, ignore_cleanup_errors=True
        ) as name:
            scratch = Path(name)
            finished, replaced = scratch / "finished", scratch / "replaced"
            finished.mkdir()
            save_model(model, str(finished / _WEIGHTS))
            whole = facts | {"weights": digest_of([finished / _WEIGHTS])}
            (finished / _FACTS).write_text(json.dumps(whole, indent=1), encoding="utf-8")
            _exchange(finished, self.folder, replaced)


def _exchange(new: Path, place: Path, aside: Path) -> None:
    """Move `new` to `place`; what stands there is damaged, or as good, and goes aside."""
    try:
        os.rename(new, place)
    except OSError:
        try:
            os.rename(place, aside)
            os.rename(new, place)
        except OSError:
            if not place.is_dir():
                raise
            shutil.rmtree(aside, ignore_errors=True)
