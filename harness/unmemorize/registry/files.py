"""Loads a plugin from one Python file, exactly as its bytes are now."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from unmemorize.errors import PluginError, said_by
from unmemorize.files.places import named


class FilePlugin(NamedTuple):
    """A plugin file that has been read and not yet run."""

    path: Path
    source: bytes

    @property
    def digest(self) -> str:
        """First 12 hex digits of the content's hash; it stands where a distribution has its version."""
        return hashlib.sha256(self.source).hexdigest()[:12]

    @property
    def module(self) -> str:
        """A module name that no other file and no other content of this file has."""
        place = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]
        return f"unmemorize_file_{self.path.stem}_{place}_{self.digest}"

    def run(self) -> ModuleType:
        """Run the file as a module of its own and return it.

        Raises:
            PluginError: the file raised; nothing of it stays in `sys.modules`.
        """
        spec = spec_from_loader(self.module, _Bytes(self), origin=str(self.path))
        assert spec is not None
        spec.has_location = True
        module = module_from_spec(spec)
        # Dataclasses and pydantic look their module up by name while the file is still running.
        sys.modules[self.module] = module
        try:
            assert spec.loader is not None
            spec.loader.exec_module(module)
        except KeyboardInterrupt:
            sys.modules.pop(self.module, None)
            raise
        except BaseException as error:
            sys.modules.pop(self.module, None)
            raise _failed(self.path, error) from error
        return module

    def forget(self) -> None:
        """Take the file's module out of `sys.modules`."""
        sys.modules.pop(self.module, None)


class _Bytes(SourceLoader):
    """Compiles the bytes that were hashed, and never a cached compilation of an earlier content."""

    def __init__(self, plugin: FilePlugin) -> None:
        self.plugin = plugin

    def get_filename(self, fullname: str) -> str:
        return str(self.plugin.path)

    def get_data(self, path: str) -> bytes:
        if path != str(self.plugin.path):
            raise OSError(path)
        return self.plugin.source


def read_plugin(path: str | Path) -> FilePlugin:
    """Read a plugin file.

    Raises:
        PluginError: there is no such file, or it is not a Python file.
    """
    try:
        place = named(path, "--plugin").resolve(strict=True)
    except (OSError, RuntimeError):  # nothing there, or a link to itself
        place = named(path, "--plugin").absolute()
    if place.suffix != ".py" or not place.is_file():
        problem = "is not a Python file" if place.exists() else "does not exist"
        raise PluginError(
            f"the plugin file {path} {problem}",
            expected="the path of one .py file",
            fix="check the path after --plugin, or under [plugins] files (relative to the suite file)",
        )
    return FilePlugin(place, place.read_bytes())


def _failed(path: Path, error: BaseException) -> PluginError:
    last, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(path):
            last = frame.tb_lineno
        frame = frame.tb_next
    line = error.lineno if isinstance(error, SyntaxError) else last
    place = f"{path}:{line}" if line else str(path)
    return PluginError(
        f"the plugin file {place} failed to load: {type(error).__name__}: {said_by(error)}",
        expected="a file that imports without an error",
        fix=import_fix(error) or f"correct {path.name}; `python {path}` shows the whole traceback",
    )


def import_fix(error: BaseException) -> str:
    """Return what to type against a missing module, or nothing where `error` is something else."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install the package that holds {error.name.partition('.')[0]!r}"
    return ""
