"""What all tests share: no hub, one thread, a cache of their own, our plugins, a tiny model, typed commands."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere
# Tiny tensors: a second thread only waits, and every worker has one. Before torch starts its pools; for children too.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
os.environ["UNMEMORIZE_EXECUTOR"] = "inline"  # a worker process per test costs time; tests of these name `processes`

import pytest
import torch
from model_folders import save, toy_tokenizer

from unmemorize import cli
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model

torch.set_num_threads(1)


class DeprecationsAreErrors(logging.Handler):
    """Raises what transformers announces through its logger, as pytest raises warnings: users would see both."""

    def emit(self, record: logging.LogRecord) -> None:
        if re.search(r"deprecat|will be removed", record.getMessage()):
            raise DeprecationWarning(record.getMessage())


logging.getLogger("transformers").addHandler(DeprecationsAreErrors())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # tiny models are trained once
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(shared / "cache"))
    monkeypatch.delenv("UNMEMORIZE_PLUGINS", raising=False)


@pytest.fixture
def registry() -> Registry:
    """The plugins of this repository, and no others."""
    return Registry.load("none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny GPT-2, without a tokenizer."""
    return save(tiny_model("gpt2"), tmp_path / "model")


@pytest.fixture
def with_tokenizer(folder: Path) -> Path:
    """The same model, with the toy tokenizer beside it."""
    toy_tokenizer().save_pretrained(folder)
    return folder


class Typed(NamedTuple):
    """What a command left."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Typed]:
    """Do in this process and in `tmp_path` what a command line does: `typed("run", "quick", COLUMNS="150")`."""

    def run(*arguments: str, **environment: str) -> Typed:
        status: int | str | None = 0
        with (
            monkeypatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["unmemorize", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                cli.main()
            except SystemExit as end:
                status = end.code
            except Exception:
                traceback.print_exc()
                status = 1
        return Typed(int(status or 0), out.getvalue(), err.getvalue())

    return run
