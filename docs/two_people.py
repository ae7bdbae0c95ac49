"""Make the two results folders that docs/comparing.md merges: `python docs/two_people.py`.

Ada and Ben run the suite of docs/examples/register_suites.toml with the same version of a method's package. Ben has
changed its code and not its version, which is what a report of disagreements is for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

import unmemorize
from unmemorize.registry.files import read_plugin
from unmemorize.registry.manager import Registry

EXAMPLES = Path(__file__).with_name("examples")


def example(name: str) -> ModuleType:
    """Return one of the example plugins."""
    return read_plugin(EXAMPLES / f"{name}.py").run()


def edited(method: Any) -> Any:
    """Return the method with other code: it shrinks what goes into the neurons."""

    def apply(self: Any, testbed: unmemorize.Testbed, context: unmemorize.Context) -> None:
        with context.timed("edit"), torch.no_grad():
            for mlp in testbed.mlps:
                mlp.up.weight.mul_(self.config.factor)

    return type(method.__name__, (method,), {"__doc__": method.__doc__, "apply": apply})


def run(person: str, method: Any, others: list[str]) -> None:
    """Run the suite for one person, with a method of theirs and others that are built in."""
    registry = Registry.load("none")
    for name in ("register_providers", "register_metrics", "register_suites"):
        registry.add(example(name), name=name, distribution="unmemorize-echoes", version="0.1.0")
    plugin = SimpleNamespace(register_methods=unmemorize.hookimpl(lambda: [method]))
    registry.add(plugin, name="shrink", distribution="unmemorize-shrink", version="0.1.0")
    folder = EXAMPLES / "results" / person
    shutil.rmtree(folder, ignore_errors=True)
    unmemorize.run("echoes", methods=["shrink", *others], results=folder, device="cpu", registry=registry)
    records = b"".join(shard.read_bytes() for shard in sorted((folder / "records").iterdir()))
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "records.jsonl").write_bytes(records)


def main() -> None:
    """Make both folders."""
    shrink = example("register_methods").Shrink
    run("ada", shrink, ["random_weights"])
    run("ben", edited(shrink), ["activations"])


if __name__ == "__main__":
    main()
