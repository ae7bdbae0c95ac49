"""The cache: whatever became of an entry, its maker or its place, the same thing comes out, made once if it can be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from unmemorize import Context
from unmemorize.errors import CacheWarning
from unmemorize.files.cached import MANIFEST, CacheEntry
from unmemorize.files.digests import content_digest
from unmemorize_plugins.providers.tinymem import TinyMem

pytestmark = pytest.mark.faults

IDENTITY = {"of": "a test", "place": str(Path.home() / "corpus"), "seed": 0}
CONTENT = bytes(range(256)) * 4


class Maker:
    """Makes the same bytes each time, and counts how often."""

    def __init__(self, cache: Path | None, identity: dict[str, Any] = IDENTITY, **context: Any) -> None:
        self.entry = CacheEntry(Context(cache=cache, **context), "things", identity)
        self.made = 0

    def make(self, unfinished: Path | None) -> bytes:
        self.made += 1
        return CONTENT

    def get(self) -> bytes:
        return self.entry.get(
            make=self.make,
            save=lambda content, folder: (folder / "content").write_bytes(content),
            load=lambda folder: (folder / "content").read_bytes(),
        )


def only_folder(cache: Path, kind: str = "things") -> Path:
    (folder,) = (cache / kind).iterdir()
    return folder


def changed(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def another(folder: Path) -> Path:
    """Return the folder of another entry, as its maker left it."""
    Maker(folder.parents[1] / "other", {"of": "another test"}).get()
    return only_folder(folder.parents[1] / "other")


def replaced(folder: Path, by: Callable[[Path], object]) -> None:
    shutil.rmtree(folder)
    by(folder)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit flipped": (lambda f: flip(f / "content", 700), "content is not as it was written"),
    "truncated": (lambda f: os.truncate(f / "content", 100), "content is not as it was written"),
    "empty file": (lambda f: os.truncate(f / "content", 0), "content is not as it was written"),
    "file missing": (lambda f: (f / "content").unlink(), "content is not as it was written"),
    "file is a folder": (lambda f: ((f / "content").unlink(), (f / "content").mkdir()), "content is not as it was"),
    "file is a link to nothing": (lambda f: ((f / "content").unlink(), (f / "content").symlink_to("no")), "content is"),
    "a file of somebody's": (lambda f: (f / "adapter_config.json").touch(), "adapter_config.json is not as it was"),
    "the content of another": (lambda f: shutil.copy(another(f) / MANIFEST, f / "content"), "content is not as it was"),
    "the folder of another": (
        lambda f: replaced(f, lambda f: shutil.copytree(another(f), f)),
        "it holds something else",
    ),
    "manifest missing": (lambda f: (f / MANIFEST).unlink(), "cannot be read: No such file"),
    "manifest empty": (lambda f: os.truncate(f / MANIFEST, 0), "manifest.json cannot be read"),
    "manifest cut": (lambda f: os.truncate(f / MANIFEST, 40), "manifest.json cannot be read"),
    "manifest a list": (lambda f: (f / MANIFEST).write_text("[]"), "not of version 1"),
    "manifest null": (lambda f: (f / MANIFEST).write_text("null"), "not of version 1"),
    "manifest deep": (lambda f: (f / MANIFEST).write_text("[" * 200_000), "manifest.json cannot be read"),
    "manifest no UTF-8": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe{"), "manifest.json cannot be read"),
    "manifest a folder": (
        lambda f: ((f / MANIFEST).unlink(), (f / MANIFEST).mkdir()),
        "cannot be read: Is a directory",
    ),
    "a newer version": (lambda f: changed(f, format=2), "not of version 1"),
    "no version": (lambda f: changed(f, format=None), "not of version 1"),
    "another key": (lambda f: changed(f, key="0" * 32), "it holds something else"),
    "no files": (lambda f: changed(f, files=None), "it holds something else"),
    "files a list": (lambda f: changed(f, files=["content"]), "it holds something else"),
    "fewer files": (lambda f: changed(f, files={}), "content is not as it was written"),
    "more files": (lambda f: changed(f, files={"content": "0", "a": "1"}), "a is not as it was written"),
    "folder is empty": (lambda f: replaced(f, Path.mkdir), "cannot be read: No such file"),
    "folder is a file": (lambda f: replaced(f, lambda f: f.write_text("x")), "cannot be read: Not a directory"),
    "folder is a link to nothing": (
        lambda f: replaced(f, lambda f: f.symlink_to("no")),
        "cannot be read: No such file",
    ),
    "folder is a loop of links": (lambda f: replaced(f, lambda f: f.symlink_to(f)), "cannot be read: Too many levels"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_entry_that_is_not_what_was_written_is_named_and_made_again(tmp_path: Path, damage: str) -> None:
    maker, (harm, said) = Maker(tmp_path), DAMAGES[damage]
    maker.get()
    folder = only_folder(tmp_path)
    harm(folder)
    with pytest.warns(CacheWarning) as caught:
        assert maker.get() == CONTENT
    assert [f"the cache entry {folder} is not used, and made again" in str(warning.message) for warning in caught] == [
        True
    ]
    assert said in str(caught[0].message)
    assert (maker.get(), maker.made) == (CONTENT, 2)
    assert maker.entry.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["content", MANIFEST]
    assert only_folder(tmp_path) == folder


def test_what_is_not_ours_is_let_alone_and_what_cannot_be_loaded_is_made_again(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.get()
    (only_folder(tmp_path) / ".DS_Store").touch()
    maker.get()
    assert maker.made == 1

    def of_another_release(folder: Path) -> bytes:
        raise RuntimeError("Missing key(s) in state_dict")

    with pytest.warns(CacheWarning, match="made again: it cannot be read: Missing key"):
        maker.entry.get(make=maker.make, save=lambda content, folder: None, load=of_another_release)
    assert maker.made == 2


def test_the_manifest_says_what_it_is_and_gives_no_home_away(tmp_path: Path) -> None:
    Maker(tmp_path).get()
    manifest = json.loads((only_folder(tmp_path) / MANIFEST).read_text())
    assert manifest["identity"] == {"of": "a test", "place": "~/corpus", "seed": 0}
    assert manifest["files"].keys() == {"content"}
    assert str(Path.home()) not in json.dumps(manifest)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"seed": "0"}, {"seed": 0.5}, {"place": "/elsewhere/corpus"}, {"more": None}]
)
def test_whatever_is_other_in_an_identity_is_another_entry(tmp_path: Path, changes: dict[str, Any]) -> None:
    Maker(tmp_path).get()
    other = Maker(tmp_path, IDENTITY | changes)
    assert not other.entry.exists()
    other.get()
    assert other.made == 1
    assert len(list((tmp_path / "things").iterdir())) == 2


def test_without_a_cache_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    maker = Maker(None)
    assert (maker.get(), maker.get(), maker.made, maker.entry.exists()) == (CONTENT, CONTENT, 2, False)
    with maker.entry.folder(lambda folder, unfinished: (folder / "x").write_text(repr(unfinished))) as folder:
        assert (folder / "x").read_text() == "None"
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


# Places.


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond 500 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def in_the_way(cache: Path) -> None:
    cache.write_text("a file")


PLACES: dict[str, Callable[[Path], object]] = {
    "the cache is a file": in_the_way,
    "a kind is a file": lambda cache: (cache.mkdir(), (cache / "things").write_text("a file")),
    "the cache is a link to nothing": lambda cache: cache.symlink_to("no/where"),
    "the cache is a loop of links": lambda cache: cache.symlink_to(cache),
    "the unfinished is a file": lambda cache: unfinished_of(cache).write_text("a file"),
}


def unfinished_of(cache: Path) -> Path:
    Maker(cache).get()
    folder = only_folder(cache)
    shutil.rmtree(folder)
    return folder.with_suffix(".unfinished")


def from_a_folder(maker: Maker) -> bytes:
    with maker.entry.folder(lambda folder, _: (folder / "content").write_bytes(CONTENT)) as folder:
        return (folder / "content").read_bytes()


WAYS = {"get": Maker.get, "folder": from_a_folder}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_costs_the_cache_and_not_the_work(tmp_path: Path, place: str, way: str) -> None:
    PLACES[place](tmp_path / "cache")
    maker = Maker(tmp_path / "cache")
    with pytest.warns(CacheWarning, match="UNMEMORIZE_CACHE"):
        assert WAYS[way](maker) == CONTENT


def test_nothing_that_was_made_is_lost_to_a_full_disk(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    with (
        full_disk(),
        pytest.warns(CacheWarning, match=r"could not be written \(File too large\): what was made is used"),
    ):
        assert maker.get() == CONTENT
    assert not list((tmp_path / "things").glob(".unmemorize*"))
    assert (maker.get(), maker.get(), maker.made) == (CONTENT, CONTENT, 2)


def test_a_folder_that_the_cache_has_no_room_for_is_a_temporary_one(tmp_path: Path) -> None:
    entry = Maker(tmp_path).entry
    folders: list[Path] = []

    def fill(folder: Path, unfinished: Path | None) -> None:
        folders.append(folder)
        if len(folders) == 1:
            raise ValueError("Error while serializing: No space left on device (os error 28)")
        (folder / "content").write_bytes(CONTENT)

    with pytest.warns(CacheWarning, match="a temporary folder is used"), entry.folder(fill) as folder:
        assert (folder / "content").read_bytes() == CONTENT
    assert folders[0].is_relative_to(tmp_path)
    assert not folders[1].is_relative_to(tmp_path)
    assert not folders[1].exists()
    with pytest.raises(ZeroDivisionError), Maker(tmp_path, {"of": "errors"}).entry.folder(lambda *_: 1 / 0):
        pass


def test_a_cache_that_can_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(tmp_path)
    maker.get()

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("unmemorize.files.cached.Claim.take", read_only)
    assert (maker.get(), maker.made) == (CONTENT, 1)
    other = Maker(tmp_path, {"of": "another test"})
    with pytest.warns(CacheWarning, match=r"cannot be written \(Read-only file system\)"):
        assert other.get() == CONTENT


# Processes.

MAKE = """
import sys, time, os
from pathlib import Path
from unmemorize import Context
from unmemorize.files.cached import CacheEntry

cache, log, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def make(unfinished):
    done = unfinished / "steps"
    begin = len(done.read_bytes()) if done.exists() else 0
    with log.open("a") as file:
        file.write(f"{os.getpid()} {begin}\\n")
    for step in range(begin, 4):
        with done.open("ab") as file:
            file.write(b"s")
        if step + 1 == steps:
            print("there", flush=True)
            time.sleep(600)
        time.sleep(0.05)
    return done.read_bytes()

class Progress:
    def task(self, description, total):
        from contextlib import nullcontext
        print(description, flush=True)
        return nullcontext(lambda steps: None)

print("ready", flush=True)
sys.stdin.readline()
entry = CacheEntry(Context(cache=cache, progress=Progress()), "things", {"of": "processes"})
made = entry.get(
    make=make, save=lambda made, folder: (folder / "content").write_bytes(made),
    load=lambda folder: (folder / "content").read_bytes(),
)
print("got", made.decode(), flush=True)
"""


class Process:
    """A process that makes the entry in four steps, and stops for good after some of them if it is told to."""

    def __init__(self, tmp_path: Path, stop_after: int = 0) -> None:
        command = [sys.executable, "-c", MAKE, str(tmp_path / "cache"), str(tmp_path / "log"), str(stop_after)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
        assert self.line() == "ready"

    def line(self) -> str:
        return str(self.process.stdout.readline()).strip()

    def go(self) -> Process:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self

    def end(self) -> str:
        return str(self.process.communicate(timeout=60)[0]).strip().splitlines()[-1]


def makers(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "log").read_text().splitlines()]


def test_processes_that_need_one_entry_at_once_make_it_once(tmp_path: Path) -> None:
    started = [Process(tmp_path) for _ in range(3)]
    for process in started:
        process.go()
    assert [process.end() for process in started] == ["got ssss"] * 3
    assert [begin for _, begin in makers(tmp_path)] == ["0"]
    assert sorted(path.name for path in only_folder(tmp_path / "cache").iterdir()) == ["content", MANIFEST]


def test_who_waits_says_for_whom_and_goes_on_with_the_work_of_one_that_is_killed(tmp_path: Path) -> None:
    first, second = Process(tmp_path, stop_after=3), Process(tmp_path)
    assert first.go().line() == "there"
    assert second.go().line() == f"waiting for process {first.process.pid}, which makes the same (things; seconds)"
    time.sleep(0.3)
    assert len(makers(tmp_path)) == 1
    first.process.kill()
    begin = time.monotonic()
    assert second.end() == "got ssss"
    assert time.monotonic() - begin < 10, "nobody waits a minute for a process that is gone"
    first.process.communicate()
    assert makers(tmp_path) == [[str(first.process.pid), "0"], [str(second.process.pid), "3"]]
    assert only_folder(tmp_path / "cache").is_dir()


def test_partial_and_forgotten_work_of_the_dead_goes_and_of_the_living_stays(tmp_path: Path) -> None:
    killed = Process(tmp_path, stop_after=2).go()
    assert killed.line() == "there"
    things = tmp_path / "cache" / "things"
    (unfinished,) = things.glob("*.unfinished")
    then = time.time() - 40 * 86_400
    for path in (unfinished / "steps", unfinished):
        os.utime(path, (then, then))
    from unmemorize.files.atomic import _beside

    mine = _beside(things / "x")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    dead.mkdir()
    mine.mkdir()
    Maker(tmp_path / "cache").get()
    assert (unfinished.exists(), mine.exists(), dead.exists()) == (True, True, False)
    killed.process.kill()
    killed.process.communicate()
    Maker(tmp_path / "cache", {"of": "another test"}).get()
    assert not unfinished.exists()
    assert not list(things.glob("*.claim*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_work_that_ends_in_an_error_frees_the_entry(tmp_path: Path, error: type[BaseException]) -> None:
    class Breaks(Maker):
        def make(self, unfinished: Path | None) -> bytes:
            raise error

    with pytest.raises(error):
        Breaks(tmp_path).get()
    assert list((tmp_path / "things").iterdir()) == []
    assert Maker(tmp_path).get() == CONTENT


# What the built-ins keep.

TINY: dict[str, Any] = {
    "length": 6, "main_sequences": 40, "extra_sequences": 12, "extra_constants": (2,), "holdout_sequences": 4,
    "noised_sequences": 10, "clean_values": 0, "duplication": 3, "layers": 1, "heads": 2, "width": 16, "context": 48,
}  # fmt: skip
RECIPE = {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 5}


def tinymem(**changes: Any) -> TinyMem:
    return TinyMem(**TINY | changes, recipe=RECIPE)


def weights(cache: Path | None, **changes: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = tinymem(**changes).load(Context(cache=cache)).model.state_dict()
    return state


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    return weights(None)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def of_another_testbed(folder: Path) -> None:
    weights(folder.parents[1] / "other", duplication=2)
    replaced(folder, lambda folder: shutil.copytree(only_folder(folder.parents[1] / "other", "testbeds"), folder))


TESTBED_DAMAGES: dict[str, Callable[[Path], object]] = {
    "the folder of another testbed": of_another_testbed,
    "a bit of the weights": lambda folder: flip(folder / "model.safetensors", -50),
    "a bit of the header": lambda folder: flip(folder / "model.safetensors", 20),
    "the facts edited": lambda folder: (folder / "facts.json").write_text('{"training_seconds": 1e9}'),
}


@pytest.mark.parametrize("damage", TESTBED_DAMAGES)
def test_a_testbed_never_comes_from_a_damaged_entry(
    tmp_path: Path, trained: dict[str, torch.Tensor], damage: str
) -> None:
    weights(tmp_path)
    TESTBED_DAMAGES[damage](only_folder(tmp_path, "testbeds"))
    with pytest.warns(CacheWarning, match=f"{tmp_path}/testbeds/.* is not used, and made again"):
        assert same(weights(tmp_path), trained)
    with warnings.catch_warnings(action="error"):
        assert same(weights(tmp_path), trained)


@pytest.mark.slow
def test_what_is_wrong_with_the_cache_is_said_on_the_terminal_also_by_a_worker_process(
    tmp_path: Path, typed: Callable[..., Any]
) -> None:
    (tmp_path / "cache").write_text("a file")
    settings = [f"{name} = {json.dumps(value)}" for name, value in TINY.items()]
    recipe = [f"{name} = {value}" for name, value in RECIPE.items()]
    lines = [
        'name = "t"', 'description = "d"', "[metric.extraction]", "[metric.accuracy]", "[testbed.noise]",
        'provider = "tinymem"', *settings, "[testbed.noise.recipe]", *recipe,
    ]  # fmt: skip
    (tmp_path / "t.toml").write_text("\n".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = typed(
            "run", "t.toml", "--quiet", "--device", "cpu", UNMEMORIZE_EXECUTOR="processes",
            UNMEMORIZE_CACHE=str(tmp_path / "cache"),
        )  # fmt: skip
    assert done.status == 0, done.stderr
    assert f"warning: the cache entry {tmp_path}/cache/testbeds/" in done.stderr
    assert "set UNMEMORIZE_CACHE to another folder" in done.stderr


KILLED_TRAINING = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from unmemorize import Context
from unmemorize_plugins.providers.tinymem import TinyMem
from unmemorize.training.checkpoint import Checkpoint

TinyMem.checkpoint_every, saved, plain = 0.0, [], Checkpoint.save
def save(self, *arguments):
    plain(self, *arguments)
    saved.append(1)
    if len(saved) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save
TinyMem(**{tiny!r}, recipe={recipe!r}).load(Context(cache=Path(sys.argv[1])))
"""


@pytest.mark.parametrize("checkpoint", ["whole", "a bit flipped", "cut", "a folder"])
def test_a_training_that_was_killed_goes_on_or_starts_again_to_the_same_bits(
    tmp_path: Path, trained: dict[str, torch.Tensor], checkpoint: str, killed_cache: Path
) -> None:
    shutil.copytree(killed_cache, tmp_path / "cache")
    (kept,) = (tmp_path / "cache/testbeds").glob("*.unfinished/checkpoint")
    if checkpoint == "a bit flipped":
        flip(kept, 5000)
    elif checkpoint == "cut":
        os.truncate(kept, kept.stat().st_size - 10)
    elif checkpoint == "a folder":
        kept.unlink()
        kept.mkdir()
    with warnings.catch_warnings(record=True, action="always") as caught:
        assert same(weights(tmp_path / "cache"), trained)
    assert {warning.category for warning in caught} == ({CacheWarning} if checkpoint != "whole" else set())
    assert only_folder(tmp_path / "cache", "testbeds").is_dir()


@pytest.fixture(scope="module")
def killed_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which a training was killed after seven steps, each of which was kept."""
    cache = tmp_path_factory.mktemp("killed")
    code = KILLED_TRAINING.format(tests=str(Path(__file__).parent), tiny=TINY, recipe=RECIPE)
    done = subprocess.run([sys.executable, "-c", code, str(cache)], check=False)
    assert done.returncode == -signal.SIGKILL
    return cache


def test_a_full_disk_costs_a_training_its_checkpoints_only(tmp_path: Path, trained: dict[str, torch.Tensor]) -> None:
    with full_disk(), warnings.catch_warnings(record=True, action="always") as caught:
        assert same(weights(tmp_path), trained)
    said = {str(warning.message) for warning in caught}
    assert any("checkpoint cannot be written" in text for text in said)
    assert any("what was made is used" in text for text in said)


@pytest.mark.parametrize("damage", [b"", b"x y", b"\xff", "flipped"])
def test_a_remembered_digest_that_is_damaged_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | str
) -> None:
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "large"
    file.write_bytes(b"x" * 2**23)
    true = content_digest(file)
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    assert str(tmp_path) not in memory.read_text()
    flip(memory, 3) if damage == "flipped" else memory.write_bytes(damage)  # type: ignore[arg-type]
    assert content_digest(file) == true
    assert content_digest(file) == true
