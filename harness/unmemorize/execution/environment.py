"""Provenance: on what a cell ran."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from unmemorize.models.devices import checked_device

PACKAGES = ("unmemorize", "torch", "transformers", "numpy", "safetensors")


def environment(device: str) -> dict[str, Any]:
    """Return versions, platform, processor, device and threads."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": _device_name(device),
        **{package: _version(package) for package in PACKAGES},
    }


def chosen_device(name: str | None) -> str:
    """Return the device called `name`; for `auto` and none, the accelerator of this machine, or `cpu`.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name is None or name == "auto":
        return best_device()
    checked_device(name)
    return name


def best_device() -> str:
    """Return the accelerator of this machine, or `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def synchronize(device: str) -> None:
    """Wait until `device`, and every other one that holds a part of the work, has done all it was asked to do."""
    if device.startswith("cuda"):
        for index in cuda_devices(device):
            torch.cuda.synchronize(index)
    elif device.startswith("mps"):
        torch.mps.synchronize()


def cuda_devices(device: str) -> list[int]:
    """Return the numbers of `device` and of every other one that holds tensors: a model may lie on several."""
    own = torch.device(device).index
    own = torch.cuda.current_device() if own is None else own
    return [index for index in range(torch.cuda.device_count()) if index == own or torch.cuda.memory_allocated(index)]


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
