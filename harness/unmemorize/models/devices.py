"""Where a model's weights go: one device, or a map over several."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from unmemorize.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch

DeviceMap = str | dict[str, int | str]

_KINDS = ("cpu", "cuda", "mps", "xpu")
_SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")


def checked_device(name: str) -> torch.device:
    """Return the device called `name`.

    Raises:
        ConfigError: no such kind of device, or this machine has none, or not so many.
    """
    import torch

    kind, _, index = name.partition(":")
    available = _available()
    if kind not in _KINDS or (index and not index.isdecimal()):
        raise _wrong(f"device {name!r} is not the name of a device", kind, available)
    if not any(device.partition(":")[0] == kind for device in available):
        raise _wrong(f"device {name!r}: this machine has no {kind} device that torch can use", kind, available)
    if index and f"{kind}:{int(index)}" not in available and name not in ("cpu:0", "mps:0"):
        raise _wrong(f"device {name!r}: this machine has no {kind} device of that number", name, available)
    return torch.device(name)


def _wrong(what: str, name: str, available: list[str]) -> ConfigError:
    names = nearest(name, available)
    return ConfigError(
        what,
        expected=f"one of {', '.join(names)} (what torch finds here)",
        fix=f"set device to {names[0]!r}, on the command line --device {names[0]}",
    )


def _available() -> list[str]:
    import torch

    found = ["cpu"]
    for kind in ("cuda", "xpu"):
        module: Any = getattr(torch, kind, None)
        if module is not None and module.is_available():
            found += [kind, *(f"{kind}:{number}" for number in range(module.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def checked_map(devices: DeviceMap | None) -> DeviceMap | None:
    """Return the device map as it is, if it can be followed here.

    Raises:
        ConfigError: an unknown word, a module on a device that does not exist or on disk, or accelerate is missing.
    """
    if devices is None:
        return None
    if isinstance(devices, dict):
        for module, device in devices.items():
            _check_entry(module, device)
    elif devices not in _SPREADS:
        checked_device(devices)
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigError(
            f"device_map = {devices!r} needs the package accelerate, which is not installed",
            expected="accelerate beside transformers, to spread one model over several devices",
            fix="pip install accelerate, or remove device_map and set one device",
        )
    return devices


def _check_entry(module: str, device: int | str) -> None:
    if device == "disk":
        raise ConfigError(
            f"device_map puts {module!r} on disk",
            expected="every module on a device: weights on disk can be neither trained nor edited",
            fix=f"device_map = {{ {module!r} = 'cpu', ... }}, or a smaller dtype",
        )
    checked_device(f"cuda:{device}" if isinstance(device, int) else device)
