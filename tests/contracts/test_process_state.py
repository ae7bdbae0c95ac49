"""Everything that a plugin can change for a whole process is seen, named and put right, or said to be left."""

from __future__ import annotations

import builtins
import contextlib
import gc
import io
import json
import locale
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from unmemorize.contracts.metric import Measurement
from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import ProcessState, guarded
from unmemorize.testing.alone import alone


def enter(mode: contextlib.AbstractContextManager[object]) -> None:
    """Enter a mode and never leave it."""
    mode.__enter__()


class Doubling(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Dispatching(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def lower_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


HOLD = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
GLOBAL: list[tuple[Callable[[], object], str]] = [
    (lambda: torch.rand(1), "torch's global random generator was used"),
    (np.random.rand, "numpy's global random generator was used"),
    (random.random, "Python's global random generator was used"),
    (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype was changed"),
    (lambda: torch.set_default_device("meta"), "torch's default device was changed"),
    (lambda: torch.set_grad_enabled(False), "torch's grad mode was changed"),
    (lambda: torch.set_num_threads(2), "torch's number of threads was changed"),
    (lambda: torch.use_deterministic_algorithms(True), "torch's switch for deterministic algorithms was changed"),
    (lambda: torch.set_float32_matmul_precision("medium"), "torch's precision of matrix products was changed"),
    (lambda: torch.autograd.set_detect_anomaly(True, check_nan=True), "torch's anomaly detection was changed"),
    (lambda: setattr(torch.nn.functional, "gelu", print), "torch.nn.functional.gelu was replaced"),
    (lambda: os.environ.update(NEW_HERE="1"), "the environment variable NEW_HERE was changed"),
    (lambda: os.chdir("/"), "the working folder was changed"),
    (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout was replaced"),
    (lambda: warnings.simplefilter("ignore"), "filters for all warnings were set"),
    (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "the handler of SIGTERM was replaced"),
    (lambda: locale.setlocale(locale.LC_ALL, "C"), "the locale was changed"),
    (lambda: setattr(torch.Tensor, "add", print), "torch.Tensor.add was replaced"),
    (lambda: setattr(json, "dumps", print), "json.dumps was replaced"),
    (lambda: setattr(builtins, "sorted", list), "builtins.sorted was replaced"),
    (lambda: setattr(Measurement, "percent", print), "unmemorize.contracts.metric.Measurement.percent was replaced"),
    (lambda: torch.set_flush_denormal(True), "torch's switch for tiny numbers (denormal) was changed"),
    (lambda: enter(torch.autocast("cpu", dtype=torch.bfloat16)), "autocast of cpu was changed"),
    (lambda: enter(Doubling()), "a function mode of torch was entered or left"),
    (lambda: enter(Dispatching()), "a dispatch mode of torch was entered or left"),
    (lambda: enter(HOLD), "hooks on saved tensors were left behind"),
    (lambda: torch.backends.cuda.enable_math_sdp(False), "torch's switch for math attention was changed"),
    (lambda: setattr(torch.backends.cudnn, "benchmark", True), "torch's switch cudnn.benchmark was changed"),
    (lambda: np.seterr(over="ignore"), "how numpy treats over in floating-point numbers was changed"),
    (lambda: sys.setrecursionlimit(700), "the recursion limit was changed"),
    (lambda: sys.settrace(lambda *_: None), "a trace function was set"),
    (lambda: setattr(sys, "excepthook", print), "sys.excepthook was replaced"),
    (lambda: sys.path.insert(0, "elsewhere"), "sys.path was changed"),
    (gc.disable, "garbage collection was switched"),
    (lambda: gc.set_threshold(1), "the thresholds of garbage collection were changed"),
    (lambda: os.umask(0o777), "the mode of new files (umask) was changed"),
    (lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 900), "a timer was left running"),
    (lower_limit, "the limit RLIMIT_NOFILE was changed"),
    (lambda: os.close(0), "the standard file 0 was closed or replaced"),
    (lambda: os.dup2(0, 1), "the standard file 1 was closed or replaced"),
    (
        lambda: subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL),
        "a process was started that still ran",
    ),
    (
        lambda: torch.nn.modules.module.register_module_forward_hook(print),
        "hooks on all modules (torch.nn.modules.module) were left behind",
    ),
]


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore::ResourceWarning")
@pytest.mark.parametrize(("change", "name"), GLOBAL, ids=[name for _, name in GLOBAL])
def test_a_global_change_is_seen_and_undone(change: Callable[[], object], name: str) -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    before = ProcessState(namespaces=Namespaces())
    with alone() as snapshot:
        change()
        assert snapshot.changes() == [name]
    assert before.changes() == []


def test_what_happens_inside_is_the_same_each_time() -> None:
    drawn = []
    for _ in range(2):
        with alone():
            drawn.append((torch.rand(1).item(), random.random(), np.random.rand(), torch.get_num_threads()))
    assert drawn[0] == drawn[1]
    assert drawn[0][3] == 1


def test_an_inference_mode_that_is_not_left_ends_with_the_plugin() -> None:
    with alone():
        mode = torch.inference_mode()
        mode.__enter__()
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    mode.__exit__(None, None, None)


def leak() -> list[object]:
    return [open(os.devnull) for _ in range(100)]


LEFT: list[tuple[Callable[[], object], str]] = [
    (lambda: threading.Thread(target=time.sleep, args=(2,), daemon=True).start(), "a thread was started that still"),
    (leak, "more than 64 files were left open"),
]


@pytest.mark.parametrize(("change", "words"), LEFT, ids=[words for _, words in LEFT])
def test_what_cannot_be_undone_is_said(change: Callable[[], object], words: str) -> None:
    with guarded() as guard:
        kept = change()
    assert [left[: len(words)] for left in guard.left] == [words]
    for file in kept or ():
        file.close()


def test_what_is_printed_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with guarded():
        print("one")
        subprocess.run(["echo", "two"], check=True)
    assert capfd.readouterr() == ("", "one\ntwo\n")


def test_a_process_that_is_split_off_ends_with_the_plugin() -> None:
    with guarded() as guard:
        child = os.fork()
    assert child
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
    assert guard.changes == ["a process was started that still ran"] or not guard.changes
