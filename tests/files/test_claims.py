"""Claims: one holder at a time, whatever dies, sleeps, or has a clock of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unmemorize.files.claims import Claim, holder, is_alive

HOUR = 3600.0

ASK_FOR_ALL = """
import sys, time
from pathlib import Path
from unmemorize.files.claims import Claim
folder = Path(sys.argv[1])
print("ready", flush=True)
while not (folder / "go").exists():
    pass
held = [claim for n in range(60) if (claim := Claim.take(folder / f"claims/{n}"))]
print(*(claim.path.name for claim in held), flush=True)
time.sleep(float(sys.argv[2]))
"""


def _asking(folder: Path) -> subprocess.Popen[str]:
    asking = subprocess.Popen(
        [sys.executable, "-c", ASK_FOR_ALL, str(folder), str(HOUR)], stdout=subprocess.PIPE, text=True
    )
    assert asking.stdout is not None
    assert asking.stdout.readline() == "ready\n"
    return asking


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("dead", [b"", b"{}"], ids=["new, or left by a holder without a token", "new, or left behind"])
def test_of_several_processes_exactly_one_gets_each_claim(tmp_path: Path, dead: bytes) -> None:
    (tmp_path / "claims").mkdir()
    for number in range(30):
        (tmp_path / f"claims/{number}").write_bytes(dead)
        _age(tmp_path / f"claims/{number}", HOUR)
    asking = [_asking(tmp_path) for _ in range(3)]
    (tmp_path / "go").touch()
    won = [name for process in asking for name in process.stdout.readline().split()]  # type: ignore[union-attr]
    for process in asking:  # only now: a process that is gone loses its claims
        process.kill()
        process.communicate()
    assert sorted(won, key=int) == [str(number) for number in range(60)]


def test_a_released_claim_leaves_nothing_and_can_be_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "k"
    with Claim.take(path) as claim:  # type: ignore[union-attr]
        assert claim.held
        assert is_alive(path)
        assert Claim.take(path) is None
    claim.release()
    assert not claim.held
    assert not is_alive(path)
    assert list(path.parent.iterdir()) == []
    assert Claim.take(path) is not None


@pytest.mark.parametrize("where", ["of this machine", "of another machine"])
def test_the_claim_of_a_killed_process_is_taken_over(tmp_path: Path, where: str) -> None:
    asking = _asking(tmp_path)
    (tmp_path / "go").touch()
    assert asking.stdout is not None
    assert len(asking.stdout.readline().split()) == 60
    path, said = tmp_path / "claims" / "7", f"process {asking.pid}"
    assert (holder(path), Claim.take(path)) == (said, None)
    if where == "of another machine":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "other", "host": "node7"}))
        said += " on node7"
    asking.send_signal(signal.SIGKILL)
    asking.communicate()
    if where == "of another machine":
        assert Claim.take(path) is None, "nobody here can know yet that it is dead"
        assert holder(path) == said
        _age(path, 61.0)
    claim = Claim.take(path)
    assert claim is not None
    assert Claim.take(path) is None
    claim.release()
    assert not list(path.parent.glob("7*"))
    assert holder(path) == ""


def test_heartbeats_keep_a_claim_and_who_misses_them_loses_it(tmp_path: Path) -> None:
    path = tmp_path / "k"
    first = Claim.take(path, stale_after=0.6)
    assert first is not None
    time.sleep(1.0)
    assert Claim.take(path, stale_after=0.6) is None
    _age(path, HOUR)  # as after an hour's sleep of its machine
    second = Claim.take(path)
    assert second is not None
    assert (first.held, second.held) == (False, True)
    first.release()
    assert second.held, "who lost a claim removes nothing"
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_takers_that_die_one_after_the_other_are_followed(tmp_path: Path) -> None:
    for _ in range(4):
        for file in tmp_path.iterdir():
            file.write_bytes(b"")  # died between making the file and writing into it
            _age(file, HOUR)
        assert Claim.take(tmp_path / "k") is not None
    assert len(list(tmp_path.iterdir())) == 4


def test_who_follows_a_claim_that_is_released_meanwhile_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    path.touch()
    _age(path, HOUR)

    def removed_meanwhile(file: object) -> bool:
        path.unlink()
        return created(file)  # type: ignore[arg-type]

    from unmemorize.files import claims

    created = claims._created
    monkeypatch.setattr(claims, "_created", removed_meanwhile)
    assert Claim.take(path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("offset", [-2 * HOUR, 2 * HOUR])
@pytest.mark.parametrize("whose", ["the machine's", "the file server's"])
def test_clocks_that_differ_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str, offset: float
) -> None:
    now, touched = time.time(), os.utime
    if whose == "the machine's":
        monkeypatch.setattr(time, "time", lambda: now + offset)
        offset = 0.0
    else:
        monkeypatch.setattr(os, "utime", lambda path, _=None: touched(path, (now + offset,) * 2))
    for name, age in (("alive", 1.0), ("dead", 61.0)):
        (tmp_path / name).touch()
        touched(tmp_path / name, (now + offset - age, now + offset - age))
    assert Claim.take(tmp_path / "alive") is None
    assert Claim.take(tmp_path / "dead") is not None


def test_a_folder_that_is_removed_under_a_claim_harms_nobody(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path / "claims" / "k", stale_after=0.1)
    assert claim is not None
    (tmp_path / "claims" / "k").unlink()
    (tmp_path / "claims").rmdir()
    time.sleep(0.1)
    assert not claim.held
    claim.release()


def test_a_claim_that_cannot_be_written_is_not_left_behind(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            Claim.take(tmp_path / "k")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
