"""Full disks, kills and odd places: what is written is whole or absent, and what was computed is kept."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
from model_folders import save, toy_tokenizer
from transformers import AutoModelForCausalLM

import unmemorize
from unmemorize import Context, Mitigation, UnmemorizeError
from unmemorize.cli import main
from unmemorize.errors import UnwritableError
from unmemorize.files.atomic import write_file
from unmemorize.files.places import writing
from unmemorize.registry.manager import Registry
from unmemorize.scaffold import PackagePlan, write_package
from unmemorize.search.findings import Findings
from unmemorize.search.found import FoundWindow
from unmemorize.suite import load_suite
from unmemorize.testing import tiny_model, tiny_sequences

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="the faults are those of POSIX")]

TOY = Path(__file__).parents[1] / "assets" / "toy.py"
SUITE = {
    "name": "toys", "plugins": {"files": [str(TOY)]}, "testbed": {"toy": {"provider": "toy"}},
    "metric": {"extraction": {}, "accuracy": {}}, "method": {"durable": {"ratio": 0.05}},
}  # fmt: skip
Write = Callable[[Path], object]


# Each verb writes, and every single thing that it asks of the system goes wrong in turn.


@pytest.fixture(scope="module")
def toys() -> Registry:
    registry = Registry.load("none")
    registry.add_file(TOY)
    return registry


@pytest.fixture(scope="module")
def mitigation(toys: Registry) -> Mitigation:
    rows = toys.provider("toy")().load(Context(seed=0)).forget.tokens.tolist()
    return unmemorize.mitigate(
        tiny_model("gpt2"), method="random_weights", forget=rows, retain=tiny_sequences(9, seed=6), prompt=4,
        registry=toys,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Findings:
    window = FoundWindow([1, 2, 3], 1, 2, "a", "b", "c", 0, 0, -1.0, 1.0, 0.0, 2)
    return Findings((window,) * 60, 60, 1, 99, 1.0, {})


@pytest.fixture
def write(request: pytest.FixtureRequest) -> Write:
    """Do the work of a verb, and write what came of it."""
    verb = request.param
    if verb == "mitigate":
        mitigation: Mitigation = request.getfixturevalue("mitigation")
        return mitigation.save
    if verb == "export":
        toys = request.getfixturevalue("toys")
        suite = load_suite(SUITE, toys)
        return lambda place: unmemorize.export(suite, "toy", folder=place, registry=toys, device="cpu")
    if verb == "new":
        return lambda place: write_package(PackagePlan("method", "mine"), place)
    if verb == "find":
        found: Findings = request.getfixturevalue("found")
        return found.write
    return board


def board(place: Path) -> None:
    with writing(place, "choose another place"):
        write_file(place, b"x" * 30_000)


FOLDERS = ("mitigate", "export", "new")
VERBS = (*FOLDERS, "find", "board")


class Trap:
    """Counts what is asked of the system about files below `root`, and does something at the nth time."""

    def __init__(self, root: Path, at: int, act: Callable[[], Any]) -> None:
        self.root, self.at, self.act, self.calls = str(root), at, act, 0

    def wrap(self, real: Callable[..., Any], *, opens: bool = False) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            mode = str(named.get("mode", given[1] if len(given) > 1 else "r")) if opens else "w"
            about = next((str(one) for one in given if isinstance(one, (str, Path, int))), "")
            writes = set(mode) & set("wax+") and not os.path.isdir(about)  # `makedirs` is content with what is there
            if writes and (about.isdecimal() or self.root in about):
                self.calls += 1
                if self.calls == self.at:
                    self.act()
            return real(*given, **named)

        return call


@contextmanager
def trapped(root: Path, at: int = 0, act: Callable[[], Any] = lambda: None) -> Iterator[Trap]:
    trap = Trap(root, at, act)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "mkdir", "fsync"):
            patch.setattr(os, name, trap.wrap(getattr(os, name)))
        for module in (builtins, io):
            patch.setattr(module, "open", trap.wrap(module.open, opens=True))
        rust = safetensors.torch.serialize_file
        patch.setattr(
            safetensors.torch, "serialize_file",
            lambda data, path, *more, **named: trap.wrap(lambda _: rust(data, path, *more, **named))(str(path)),
        )  # fmt: skip
        yield trap


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder that looks finished."""
    inside = (path.relative_to(folder) for path in sorted(folder.rglob("*")))
    seen = [path for path in inside if not any(part.endswith(".partial") for part in path.parts)]
    return {str(path): (folder / path).read_bytes() if (folder / path).is_file() else None for path in seen}


def stand(place: Path, verb: str, there: bool) -> None:
    """Let something of an earlier day stand at `place`."""
    if there and verb in FOLDERS:
        place.mkdir()
    elif there:
        place.write_text("earlier")


def fail(number: int) -> Callable[[], Any]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def interrupt() -> None:
    raise KeyboardInterrupt


def count(write: Write, verb: str, there: bool, folder: Path) -> int:
    """How many calls a whole write makes, without the last: the flush of a folder that is whole already."""
    folder.mkdir()
    stand(folder / "out", verb, there)
    with trapped(folder) as trap:
        write(folder / "out")
    return trap.calls - 1


FAULTS = [(number, where, there) for number, where, there in (
    (errno.ENOSPC, 0.0, True), (errno.ENOSPC, 0.5, False), (errno.ENOSPC, 1.0, True), (errno.EDQUOT, 0.7, False),
    (errno.EROFS, 0.0, False), (errno.EIO, 0.9, True), (errno.EMFILE, 0.3, False), (0, 0.4, True), (0, 0.95, False),
)]  # fmt: skip


@pytest.mark.parametrize(("number", "where", "there"), FAULTS)
@pytest.mark.parametrize(("verb", "write"), [(verb, verb) for verb in VERBS], indirect=["write"])
def test_an_error_at_any_call_leaves_nothing_and_the_next_try_works(
    verb: str, write: Write, number: int, where: float, there: bool, tmp_path: Path
) -> None:
    calls = count(write, verb, there, tmp_path / "whole")
    folder = tmp_path / "there"
    folder.mkdir()
    stand(folder / "out", verb, there)
    before = tree(folder)
    at = 1 + round(where * (calls - 1))
    with trapped(folder, at, fail(number) if number else interrupt), pytest.raises(
        UnwritableError if number else KeyboardInterrupt
    ) as caught:  # fmt: skip
        write(folder / "out")
    if number:
        parts = caught.value
        assert isinstance(parts, UnmemorizeError)
        assert os.strerror(number) in parts.what
        assert parts.expected
        assert parts.fix
    assert tree(folder) == before
    assert not [*folder.rglob("*.partial")]
    write(folder / "out")
    assert tree(folder).keys() == tree(tmp_path / "whole").keys()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("where", "there"), [(0.0, False), (0.4, True), (0.8, False), (1.0, True)])
@pytest.mark.parametrize(("verb", "write"), [(verb, verb) for verb in VERBS], indirect=["write"])
def test_a_kill_at_any_call_leaves_nothing_that_looks_finished(
    verb: str, write: Write, where: float, there: bool, tmp_path: Path
) -> None:
    calls = count(write, verb, there, tmp_path / "whole")
    folder = tmp_path / "there"
    folder.mkdir()
    stand(folder / "out", verb, there)
    before = tree(folder)
    child = os.fork()
    if child == 0:
        with trapped(folder, 1 + round(where * (calls - 1)), lambda: os.kill(os.getpid(), signal.SIGKILL)):
            write(folder / "out")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = tree(folder)
    if where < 1 or verb not in FOLDERS:
        assert left == before
    assert "out/config.json" not in left
    assert "out/testbed.json" not in left
    if left == before:
        with writing(folder / "out", "look"):
            write(folder / "out")
        assert tree(folder).keys() == tree(tmp_path / "whole").keys()


@contextmanager
def limited(kind: int, size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.mark.parametrize("size", [0, 150, 1200])
@pytest.mark.parametrize(("verb", "write"), [(verb, verb) for verb in VERBS], indirect=["write"])
def test_a_disk_that_fills_up_in_the_middle_of_a_file(verb: str, write: Write, size: int, tmp_path: Path) -> None:
    stand(tmp_path / "out", verb, there=True)
    before = tree(tmp_path)
    with limited(resource.RLIMIT_FSIZE, size), pytest.raises(UnwritableError, match="File too large") as caught:
        write(tmp_path / "out")
    assert "room" in caught.value.expected
    assert tree(tmp_path) == before
    assert not [*tmp_path.rglob("*.partial")]


@pytest.mark.parametrize(("verb", "write"), [(verb, verb) for verb in VERBS], indirect=["write"])
def test_no_file_may_be_opened_any_more(verb: str, write: Write, tmp_path: Path) -> None:
    write(tmp_path / "warm")  # what is imported while it is written
    before = tree(tmp_path)
    os.close(first := os.open(os.devnull, os.O_RDONLY))
    with (
        limited(resource.RLIMIT_NOFILE, first),
        pytest.raises(UnwritableError, match="Too many open files") as caught,
    ):
        write(tmp_path / "out")
    assert "ulimit -n" in caught.value.expected
    assert tree(tmp_path) == before


# A place that cannot be: said in three parts, before a model is loaded (there is none) or anything is computed.


def occupied(place: Path) -> None:
    place.mkdir()
    (place / "mine").write_text("precious")


PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a folder below a file": ("file/out", lambda here: (here / "file").write_text("x")),
    "a pipe": ("pipe", lambda here: os.mkfifo(here / "pipe")),
    "a loop of links": ("loop", lambda here: (here / "loop").symlink_to("loop")),
    "a link into nothing": ("link", lambda here: (here / "link").symlink_to("nowhere/else")),
    "a name that is too long": ("x" * 300, lambda here: None),
    "a name in a new folder that is too long": ("new/" + "x" * 300, lambda here: None),
    "a path that is too long": ("/".join(["y" * 200] * 25), lambda here: None),
    "a device as a folder": ("/dev/full/out", lambda here: None),
    "a file system that takes none": ("/proc/nowhere/out", lambda here: None),
}
REASONS = ("cannot be written", "too long", "exists already", "symbolic links", "not a folder")
COMMANDS = {
    "mitigate": ("mitigate", "none", "--method", "durable", "--forget", "none.jsonl", "--quiet", "--out"),
    "export": ("export", "toys.toml", "--quiet", "--out"),
    "find": ("find", "./none", "none", "--quiet", "--out"),
    "run": ("run", "toys.toml", "--quiet", "--results"),
    "board": ("board", "none", "--format", "html", "--output"),
    "new": ("new", "method", "mine", "--folder"),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "toys.toml").write_text(
        f'name = "toys"\n[plugins]\nfiles = ["{TOY}"]\n[testbed.toy]\nprovider = "toy"\n[metric.extraction]\n'
        "[metric.accuracy]\n[method.durable]\nratio = 0.05\n"
    )
    return tmp_path


def in_three_parts(stderr: str) -> bool:
    return [line.split(":")[0].strip() for line in stderr.splitlines()] == ["error", "expected", "fix"]


def test_a_working_folder_that_was_removed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        patch.setattr(sys, "argv", ["unmemorize", "run", str(tmp_path / "toys.toml")])
        with pytest.raises(SystemExit, match="2"):
            main()
    stderr = capsys.readouterr().err
    assert in_three_parts(stderr), stderr
    assert "the working folder is not there any more" in stderr


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    command: str, name: str, here: Path, typed: Callable[..., Any]
) -> None:
    place, prepare = PLACES[name]
    if command == "board" and name == "a pipe":
        pytest.skip("a pipe may be read by somebody: tests/files/test_atomic.py")
    prepare(here)
    before = {path: path.lstat().st_mtime_ns for path in here.rglob("*")}
    done = typed(*COMMANDS[command], place)
    assert done.status == 2, done
    if not done.stderr.startswith("Usage:"):
        assert in_three_parts(done.stderr), done.stderr
        assert any(
            word in done.stderr for word in ("written", "too long", "exists already", "symbolic links", "not a folder")
        )
    assert {path: path.lstat().st_mtime_ns for path in here.rglob("*")} == before


STRANGE = {
    "a new line": "a\nb", "bidi": "a\u202eb", "a leading dash": "./-rf", "no UTF-8": os.fsdecode(b"\xff\xfe"),
    "spaces": " a  b ",
    "markup": "[bold]x[/] <b> %s {0}", "250 bytes": "é" * 125, "its own folder": "no/such/folder/x",
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_a_name(name: str, here: Path, typed: Callable[..., Any]) -> None:
    assert typed("run", "toys.toml", "--quiet", "--results", STRANGE[name], "--executor", "inline").status == 0
    done = typed("board", STRANGE[name], "--output", f"{STRANGE[name]}/board.html")
    assert (done.status, (here / STRANGE[name] / "board.html").is_file()) == (0, True)
    assert "\u202e" not in done.stderr
    if name in ("a new line", "no UTF-8"):
        done = typed("export", "toys.toml", "--quiet", "--out", f"{STRANGE[name]}.export", "--json")
        assert (done.status, (here / f"{STRANGE[name]}.export" / "testbed.json").is_file()) == (0, True)


# What is computed is kept: in the records, in the state of a search, elsewhere, or at least on the screen.


@pytest.fixture
def own(here: Path, toys: Registry) -> Path:
    """A model, what it regurgitates, and texts."""
    testbed = toys.provider("toy")().load(Context(seed=0))
    save(testbed.model, here / "model")
    toy_tokenizer().save_pretrained(here / "model")
    for name, rows in (("forget", testbed.forget.tokens), ("retain", testbed.retain.tokens)):
        (here / f"{name}.jsonl").write_text("".join(f"{json.dumps({'tokens': row})}\n" for row in rows.tolist()))
    (here / "texts.txt").write_text(" ".join(f"w{number % 20 + 3}" for number in range(60)))
    return here


MITIGATE = (
    "mitigate", "model", "--method", "random_weights", "--forget", "forget.jsonl", "--retain", "retain.jsonl",
    "--prompt", "4", "--quiet", "--out", "out",
)  # fmt: skip


def full(patch: pytest.MonkeyPatch, *roots: Path) -> None:
    """Let nothing of the first bytes on be moved to below these folders: the disk has filled up since it was tried."""
    real = os.replace

    def replace(partial: Any, place: Any) -> None:
        if any(str(place).startswith(str(root)) for root in roots):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(partial, place)

    patch.setattr(os, "replace", replace)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_model_that_finds_no_room_is_saved_elsewhere(
    more: tuple[str, ...], own: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, own / "out")
    done = typed(*MITIGATE, *more, UNMEMORIZE_CACHE=str(own / "cache"))
    assert done.status == 1
    assert in_three_parts(done.stderr)
    assert "No space left" in done.stderr
    (instead,) = (own / "cache" / "unsaved").iterdir()
    assert f"mv {instead} PLACE" in done.stderr
    AutoModelForCausalLM.from_pretrained(instead)
    if more:
        assert (json.loads(done.stdout)["out"], json.loads(done.stdout)["method"]["name"]) == (None, "random_weights")
    else:
        assert "extraction@4+8" in done.stdout


def test_a_model_that_finds_no_room_anywhere_leaves_its_numbers(
    own: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(own)
    full(monkeypatch, own / "out", own / "cache" / "unsaved")
    done = typed(*MITIGATE, UNMEMORIZE_CACHE=str(own / "cache"))
    assert done.status == 2
    assert in_three_parts(done.stderr)
    assert "its numbers are printed" in done.stderr
    assert "extraction@4+8" in done.stdout
    assert tree(own).keys() - before.keys() <= {"cache"}
    monkeypatch.undo()
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(own / "cache"))
    assert typed(*MITIGATE).status == 0


def test_a_disk_without_room_for_the_model_is_told_before_the_method_acts(
    own: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(unmemorize.api, "mitigate", lambda *_, **__: pytest.fail("it acts"))
    done = typed(*MITIGATE)
    assert (done.status, in_three_parts(done.stderr), "room for 1,000 bytes" in done.stderr) == (2, True, True)


@pytest.mark.parametrize("model", [os.fsdecode(b"\xffmodel"), ""])
def test_no_model_is_called_that(model: str, own: Path, typed: Callable[..., Any]) -> None:
    done = typed("mitigate", model, *MITIGATE[2:])
    assert (done.status, in_three_parts(done.stderr)) == (2, True), done


def test_texts_of_names_that_are_no_utf_8(own: Path, typed: Callable[..., Any]) -> None:
    odd = [own / os.fsdecode(b"te\xffxts") / name for name in (os.fsdecode(b"\xfe.txt"), "a\nb.txt", "-.txt")]
    odd[0].parent.mkdir()
    for place in odd:
        place.write_text((own / "texts.txt").read_text())
    sizes = ("--prompt", "4", "--suffix", "4", "--quiet")
    done = typed("find", "./model", str(odd[0].parent), *sizes, "--out", os.fsdecode(b"\xff.jsonl"))
    assert (done.status, (own / os.fsdecode(b"\xff.jsonl")).is_file()) == (0, True), done


def test_records_and_the_board_on_the_screen_outlive_board_md(
    here: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("run", "toys.toml", "--quiet", "--results", "r", "--executor", "inline")
    with monkeypatch.context() as patch:
        full(patch, here / "r" / "board.md")
        done = typed(*command)
    assert done.status == 1
    assert in_three_parts(done.stderr)
    assert "all records are kept" in done.stderr
    assert "durable" in done.stdout
    again = typed(*command)
    assert (again.status, "0 run, 2 done before" in again.stdout) == (0, True)
    assert (here / "r" / "board.md").is_file()


def test_a_search_outlives_its_file(own: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("find", "./model", "texts.txt", "--prompt", "4", "--suffix", "4", "--stride", "2", "--quiet")
    with monkeypatch.context() as patch:
        full(patch, own / "found.jsonl")
        done = typed(*command)
    assert done.status == 1
    assert in_three_parts(done.stderr)
    assert "regurgitates" in done.stdout
    state = (own / "found.jsonl.state").read_bytes()
    assert typed(*command).status == 0
    assert ((own / "found.jsonl").is_file(), (own / "found.jsonl.state").read_bytes()) == (True, state)


def test_a_board_is_read_while_records_are_written(here: Path, typed: Callable[..., Any]) -> None:
    typed("run", "toys.toml", "--quiet", "--results", "r", "--executor", "inline")
    (shard,) = (here / "r" / "records").glob("*.jsonl")
    whole = shard.read_bytes()
    first, second = whole.splitlines(keepends=True)
    for end in (0, 1, len(second) // 2, len(second) - 1, len(second)):
        shard.write_bytes(first + second[:end])  # as an append looks while it goes on
        done = typed("board", "r", "--json")
        assert (done.status, "Traceback" in done.stderr) == (0, False), done


def test_a_container_has_nothing(here: Path) -> None:
    """No HOME, no TERM, no locale, no standard input, files for nobody else; the cache's place is a file."""
    (here / "cache").write_text("a file")
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C", "UNMEMORIZE_CACHE": "cache", "PATH": ""}
    command = (sys.executable, "-m", "unmemorize", "new", "method", "mine")
    done = subprocess.run(
        command, cwd=here, env={**environment, "UNMEMORIZE_PLUGINS": "none"}, capture_output=True, check=False,
        umask=0o077, preexec_fn=lambda: os.close(0),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert (here / "unmemorize-mine" / "pyproject.toml").stat().st_mode & 0o777 == 0o600
