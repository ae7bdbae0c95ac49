"""Commands that only look never import torch, nor anything that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LIGHT = [
    ["--help"],
    ["run", "--help"],
    ["mitigate", "--help"],
    ["lits"],
    ["list"],
    ["list", "--json"],
    ["plugins"],
    ["show", "balanced_subnet"],
    ["show", "tinymem_language", "--json"],
    ["show", "quick"],
    ["show", "./model"],
    ["shwo", "quick"],
    ["show", "balanced_subnett"],
    ["new", "method", "mine"],
    ["plan", "quick"],
    ["plan", "quick", "--json"],
    ["board", "quick"],
]
CODE = """
import contextlib, io, json, sys
from unmemorize.cli import group
seen = {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit, Exception):
            group(arguments)
    seen[" ".join(arguments)] = [name for name in ("torch", "transformers", "safetensors.torch") if name in sys.modules]
print(json.dumps(seen))
"""


def test_they_never_import_torch(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    about = {"model_type": "gpt2", "n_layer": 1, "n_embd": 4}
    (tmp_path / "model" / "config.json").write_text(json.dumps(about))
    mlp = {f"transformer.h.0.mlp.{name}.weight": shape for name, shape in (("c_fc", (4, 8)), ("c_proj", (8, 4)))}
    save_file({name: np.zeros(shape) for name, shape in mlp.items()}, tmp_path / "model" / "model.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(LIGHT)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "UNMEMORIZE_PLUGINS": "none"},
    )  # fmt: skip
    assert json.loads(done.stdout) == {" ".join(arguments): [] for arguments in LIGHT}
    assert (tmp_path / "unmemorize-mine" / "pyproject.toml").exists()  # the commands have really run
