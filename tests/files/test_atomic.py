"""What is written is whole or absent, and what killed processes leave is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unmemorize.files.atomic import atomic_file, atomic_folder, check_place, is_empty, sweep, write_file


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    write_file(place, b"one")
    place.chmod(0o640)
    (tmp_path / "link").symlink_to(place)
    write_file(tmp_path / "link", b"two")
    assert (place.read_bytes(), place.stat().st_mode & 0o777, (tmp_path / "link").is_symlink()) == (b"two", 0o640, True)
    with pytest.raises(IsADirectoryError), atomic_file(place) as partial:
        (partial.write_bytes(b"half"), tmp_path.read_bytes())
    assert place.read_bytes() == b"two"
    assert [*tmp_path.rglob("*.partial")] == []


@pytest.mark.parametrize("kind", ["absent", "empty", "nested"])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    place = tmp_path / ("a/b/out" if kind == "nested" else "out")
    if kind == "empty":
        place.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(IsADirectoryError), atomic_folder(place) as partial:
        ((partial / "x").write_bytes(b"half"), tmp_path.read_bytes())
    assert sorted(tmp_path.rglob("*")) == before
    inode = place.stat().st_ino if kind == "empty" else 0
    with atomic_folder(place, last="config.json") as partial:
        (partial / "config.json").write_bytes(b"1")
        (partial / "sub").mkdir()
        (partial / "sub" / "y").write_bytes(b"2")
        (partial / "sub" / "y").chmod(0o600)
        assert not place.exists() or is_empty(place)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["config.json", "sub", "sub/y"]
    assert inode in (0, place.stat().st_ino)
    assert (place / "sub" / "y").stat().st_mode == (place / "config.json").stat().st_mode


def test_a_folder_that_holds_something_is_kept_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "own").write_bytes(b"x")
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "out") as partial:
        (partial / "new").write_bytes(b"y")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["own"]
    with atomic_folder(tmp_path / "out", replace=True) as partial:
        (partial / "new").write_bytes(b"y")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["out", "out/new"]


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    program = (
        "import os, signal, pathlib; from unmemorize.files.atomic import atomic_folder\n"
        f"with atomic_folder(pathlib.Path({str(tmp_path / 'out')!r})) as partial:\n"
        "    (partial / 'x').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len([*tmp_path.iterdir()]) == 1
    assert is_empty(tmp_path)
    with atomic_file(tmp_path / "file") as partial:
        partial.write_bytes(b"x")
        check_place(tmp_path / "out")
        assert [*tmp_path.iterdir()] == [partial]
    other = tmp_path / ".unmemorize-0-1-2.partial"
    other.touch()
    sweep(tmp_path)
    assert other.exists()  # of another machine, and new
    os.utime(other, (0, 0))
    sweep(tmp_path)
    assert not other.exists()


def test_a_device_is_written_and_a_pipe_without_a_reader_refused(tmp_path: Path) -> None:
    write_file(Path("/dev/null"), b"x")
    assert Path("/dev/null").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    for place, reason in ((tmp_path / "pipe", "No such device"), (Path("/dev/full"), "No space")):
        with pytest.raises(OSError, match=reason):
            write_file(place, b"x")


@pytest.mark.parametrize("target", ["loop", "missing/file"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic links|No such file"):
        write_file(tmp_path / "loop", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
