"""What a plugin changes in the process while it is loaded is undone, and said of it; what it prints is no output."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from unmemorize.contracts.process_state import ProcessState
from unmemorize.registry.manager import Registry

LINES = {
    "import os; os.chdir('/')": "the working folder was changed",
    "import random; random.seed(0)": "Python's global random generator was used",
    "import torch; torch.set_default_dtype(torch.float64)": "torch's default dtype was changed",
    "import torch; torch.set_grad_enabled(False)": "torch's grad mode was changed",
    "import torch; torch.manual_seed(1)": "torch's global random generator was used",
    "import numpy; numpy.random.seed(1)": "numpy's global random generator was used",
    "import sys; sys.stdout = open('/dev/null', 'w')": "sys.stdout was replaced",
    "import warnings; warnings.simplefilter('ignore')": "filters for all warnings were set",
    "import warnings; warnings.resetwarnings()": "filters for all warnings were set",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)": "the handler of SIGTERM was replaced",
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", ["at the top", "in a hook"])
@pytest.mark.parametrize("line", LINES)
def test_it_is_undone_and_named(method_source: Callable[[str], str], tmp_path: Path, line: str, way: str) -> None:
    source = method_source("thing")
    source = source.replace("    return [", f"    {line}\n    return [") if way == "in a hook" else f"{line}\n{source}"
    (tmp_path / "shaky.py").write_text(source)
    before = ProcessState()
    info = Registry().add_file(tmp_path / "shaky.py")
    assert before.changes() == []
    assert info.notes == (f"while it was loaded, {LINES[line]}; that is undone",)


def test_a_filter_for_ones_own_warnings_stays(method_source: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import warnings; warnings.filterwarnings('ignore', module='mine')\n" + method_source("thing")
    )
    with warnings.catch_warnings():
        registry = Registry()
        registry.add_file(tmp_path / "mine.py")
        assert any(each[3] is not None and each[3].pattern == "mine" for each in warnings.filters)
    assert registry.plugins()[0].notes == ()


@pytest.mark.parametrize(("end", "status"), [("", "ok"), ("raise SystemExit", "broken")])
def test_an_installed_plugin_leaves_nothing_either(
    install: Callable[..., Path], method_source: Callable[[str], str], end: str, status: str
) -> None:
    install("shaky", f"import os; os.chdir('/')\n{method_source('thing')}\n{end}\n")
    before = os.getcwd()
    (info,) = [each for each in Registry.load().plugins() if each.name == "shaky"]
    assert (info.status, bool(info.notes)) == (status, status == "ok")
    assert os.getcwd() == before


def test_the_first_import_of_a_library_is_seen_before_the_plugin_goes_on(
    method_source: Callable[[str], str], tmp_path: Path
) -> None:
    lines = (
        "import torch, numpy\ntorch.set_num_threads(3)\ntorch.set_default_dtype(torch.float64)\nnumpy.random.seed(0)\n"
    )
    (tmp_path / "shaky.py").write_text(lines + method_source("thing"))
    code = (
        "import sys; from unmemorize.registry import Registry; r = Registry(); assert 'torch' not in sys.modules;"
        "print(*r.add_file('shaky.py').notes, sep='\\n');"
        "import torch; assert torch.get_default_dtype() is torch.float32; print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "while it was loaded, numpy's global random generator was used; that is undone",
        "while it was loaded, torch's default dtype was changed; that is undone",
        "while it was loaded, torch's number of threads was changed; that is undone",
        "1",
    ]


@pytest.mark.parametrize(
    "content", [b"[unmemorize]\nthis line is no entry point\n", b"\xff\xfe[other]\nno entry point\n"]
)
def test_one_malformed_file_breaks_only_its_own_distribution(tmp_path: Path, content: bytes) -> None:
    info = tmp_path / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(content)
    path = os.pathsep.join([str(tmp_path), *map(os.path.abspath, filter(None, sys.path))])
    code = (  # torch, pydantic and fsspec read the entry points of everything that is installed
        "from unmemorize import cli; import torch, fsspec; cli.group(['plugins'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["ok", "builtin"] in [row[:2] for row in rows]
    assert [row[1] for row in rows if row[:1] == ["broken"]] == ["somebody"] * content.startswith(b"[unmemorize]")
