"""A method, a metric and a provider that do what no plugin should, each as its setting `kind` says."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from unmemorize import Measurement, Method, Metric, ModelProvider, StrictConfig, hookimpl
from unmemorize.testing import tiny_model


class Own(BaseException):
    """An exception that is none of Python's."""


class UntoldError(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def recurse() -> None:
    recurse()


def loop() -> None:
    while True:
        pass


def grow() -> None:
    held = []
    while True:
        held.append(b"x" * 2**26)
        time.sleep(0.02)


def raised(error: BaseException) -> None:
    raise error


def flood() -> None:
    for _ in range(20_000):
        print("y" * 1000)


def start_child() -> None:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    Path(os.environ["CHILD"]).write_text(str(child.pid))


KINDS = {
    "fine": lambda: None,
    "exits": lambda: sys.exit(3),
    "os_exit": lambda: os._exit(5),
    "segfault": lambda: ctypes.string_at(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": lambda: raised(KeyboardInterrupt()),
    "own": lambda: raised(Own("mine")),
    "generator_exit": lambda: raised(GeneratorExit()),
    "stop_iteration": lambda: raised(StopIteration()),
    "recursion": recurse,
    "sleep": lambda: time.sleep(1000),
    "loop": loop,
    "grow": grow,
    "untold": lambda: raised(UntoldError()),
    "long_text": lambda: raised(ValueError("x" * 20_000_000)),
    "odd_text": lambda: raised(ValueError("\x1b[31m\ud800\u202e")),
    "flood": flood,
    "closes_stdout": sys.__stdout__.close,
    "closes_files": lambda: os.closerange(3, 4096),
    "forks": os.fork,
    "thread": lambda: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(),
    "child": start_child,
    "deletes_results": lambda: shutil.rmtree(os.environ["RESULTS"]),
}


class Kind(StrictConfig):
    """What it does."""

    kind: str = "fine"
    """One of `KINDS`, or `notes`."""
    on: str = ""
    """Only where the file of this name is not there; it is made."""


def act(config: Kind) -> None:
    if not config.on:
        KINDS[config.kind]()
    elif not Path(config.on).exists():
        Path(config.on).touch()
        KINDS[config.kind]()


class Fatal(Method):
    """Edit a little, then do it."""

    name = "fatal"
    stage = "unlearn"
    needs = frozenset()
    Config = Kind

    def apply(self, testbed, context):
        """Edit a little, then do it."""
        with torch.no_grad():
            next(testbed.model.parameters()).mul_(0.9)
        if self.config.kind == "notes":
            context.report.notes["odd"] = object()
        else:
            act(self.config)


class FatalMetric(Metric):
    """Do it, then measure nothing."""

    name = "fatal_metric"
    kind = "utility"
    direction = "higher"
    range = (0.0, 100.0)
    Config = Kind

    def measure(self, evaluation):
        """Do it."""
        act(self.config)
        yield Measurement(set="holdout", value=5.0, count=3)


class FatalProvider(ModelProvider):
    """Do it, then load nothing."""

    name = "fatal_provider"
    Config = Kind

    def load(self, context):
        """Do it."""
        act(self.config)
        return tiny_model("gpt2")


@hookimpl
def register_methods():
    """Return the method."""
    return [Fatal]


@hookimpl
def register_metrics():
    """Return the metric."""
    return [FatalMetric]


@hookimpl
def register_providers():
    """Return the provider."""
    return [FatalProvider]
