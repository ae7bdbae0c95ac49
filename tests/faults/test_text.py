"""Hostile text in records, plugins, models and files stays text in every output, and nothing private is published."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from markdown_it import MarkdownIt

from unmemorize import DataError, UnmemorizeError
from unmemorize.api.saving import card
from unmemorize.cli.find import _print_examples
from unmemorize.files.privacy import public
from unmemorize.leaderboard.board import Board, build_board
from unmemorize.leaderboard.formats import rendered
from unmemorize.leaderboard.page import to_html
from unmemorize.models.source import ModelSource, open_model
from unmemorize.results.record import Record
from unmemorize.results.schema import SCHEMA
from unmemorize.search.findings import Findings
from unmemorize.search.found import FoundWindow
from unmemorize.untrusted import cell, code, file_name, json_text, line, markdown, plain

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "assets" / "toy.py"
WORD = (
    '=1+1 [red]j[/] :smile: "><img src=x onerror=a()><script>a()</script> [b](javascript:a()) ![i](x) `c` ```d '
    "<b>e</b> &lt; a|b $x$ www.f.g https://h.i \\input{/etc/passwd} %k \x1b]0;l\x07\x1b[2J\x9b31m\u202em\u200bn\r\n"
    "# o\n---\n- p\x7f\u3164"
)
"""What terminals, pages, Markdown, spreadsheets, LaTeX and rich would each act on."""


def acting(text: str) -> set[str]:
    """The characters in a text that act on a terminal, or that nobody sees."""
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char != "\n"}


# Boards.


def row(method: str, status: str = "done", **changes: Any) -> dict[str, Any]:
    """A record as it lies in a file, checked by nobody."""
    origin = {"name": method, "plugin": "p", "distribution": "d", "version": "1"}
    ends = dict.fromkeys(("before_low", "before_high", "after_low", "after_high"))
    about = {"part": "all", "count": 9, **ends}
    values = [
        {"metric": "m", "kind": "memorization", "direction": "lower", "set": "forget", "before": 90.0, "after": 9.0},
        {"metric": "u", "kind": "utility", "direction": "higher", "set": "holdout", "before": 90.0, "after": 80.0},
    ]
    fields: dict[str, Any] = dict.fromkeys(SCHEMA) | {
        "schema_version": 1, "deaths": 0,
        "key": f"{method}-{len(status)}", "key_version": 1, "status": status, "suite": "s",
        "finished_at": "2026-01-01T00:00:00+00:00", "testbed": "t", "provider_config": "{}",
        "provider": origin | {"name": "provider"},
        "fingerprint": "{}", "method": method, "method_origin": None if method == "base" else origin,
        "method_config": "{}", "stage": "unlearn", "needs": ["forget"], "metrics": "{}", "metric_origins": [],
        "seed": 0, "memorization": "m", "utility": "u", "curve": "[]", "seconds": "{}", "flags": [],
        "values": [about | value for value in values] if status == "done" else [], "notes": "{}",
        "testbed_facts": "{}", "environment": "{}", "reason": None if status == "done" else "r",
    }  # fmt: skip
    return fields | changes


def poisoned(field: str) -> list[dict[str, Any]]:
    """Three methods and a failure, with WORD in one field of each."""
    rows = [row("base"), row("one"), row("two"), row("three", "failed")]
    for number, record in enumerate(rows):
        if field in ("distribution", "version"):
            record["method_origin"] = (record["method_origin"] or record["provider"]) | {field: WORD}
        elif field in ("method_config", "provider_config", "fingerprint"):
            record[field] = json.dumps({WORD: f"{WORD}{number % 2}"})
        elif field in ("flags", "needs"):
            record[field] = [WORD, *(f"{WORD}{n}" for n in range(30))]
        elif field in ("memorization", "utility"):
            old, record[field] = record[field], WORD
            record["values"] = [v | {"metric": WORD} if v["metric"] == old else v for v in record["values"]]
        elif field == "method" and number == 0:
            continue
        elif field == "provider":
            record[field] = dict.fromkeys(record[field], f"{WORD}{number % 2}")
        elif field == "reason":
            record[field] = WORD if record["status"] == "failed" else None
        elif field == "status":
            record[field] = WORD if number == 3 else "done"
        else:
            record[field] = WORD
    return rows


def board_of(rows: list[dict[str, Any]], set_aside: tuple[str, ...] = ()) -> Board:
    return build_board(pl.DataFrame(rows, schema=dict(SCHEMA)), all_configs=True, set_aside=set_aside)


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


PARSER = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"])


def check_markdown(text: str, headings: int) -> str:
    """Parse Markdown, find no more than tables, lists and so many headings in it, and return its text."""
    tokens = PARSER.parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inner)}
    assert not {kind for kind in kinds if re.search("html|link|image|fence|code_block|hr|s_open|softbreak", kind)}
    assert sum(token.type == "heading_open" for token in tokens) == headings
    assert not re.search(r"(?<!\\)www\.|:(?!\\)//", re.sub(r"(`+).*?\1", "", text))  # which GitHub makes links of
    return "".join(child.content for child in inner)


FIELDS = (
    *("suite", "testbed", "method", "stage", "status", "reason", "finished_at", "memorization", "utility", "flags"),
    *("needs", "distribution", "version", "provider", "method_config", "provider_config", "fingerprint"),
)
UNSEEN = ("finished_at",)
"""Fields that no board shows."""


@pytest.fixture(scope="module")
def plain_elements() -> set[str]:
    return {*Page(to_html(board_of([row("base"), row("one", flags=["f"]), row("two", "failed")]))).elements, "small"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_record_is_text_on_every_board(field: str, plain_elements: set[str]) -> None:
    board = board_of(poisoned(field), (f"records/{WORD}, line 1: {WORD}",))
    start = line(WORD)[:24]
    outputs = {kind: rendered(board, kind).decode() for kind in ("html", "markdown", "csv", "latex", "terminal")}
    for kind, text in outputs.items():
        assert acting(text) == set(), kind
    page = Page(outputs["html"])
    assert set(page.elements) <= plain_elements
    assert page.elements.count("script") == 1
    assert not {name for name in page.attributes if name.startswith("on") or name in ("href", "src", "style")}
    shown = check_markdown(outputs["markdown"], headings=len(board.tables))
    if field not in UNSEEN:
        assert start in page.text
        assert start in shown
    rows = list(csv.reader(io.StringIO(outputs["csv"])))
    assert {len(cells) for cells in rows} == {len(rows[0])}
    assert not [text for cells in rows for text in cells if re.match(r"\s*[=@+\t\r]", text)]
    latex = outputs["latex"]
    assert "\\input" not in latex
    assert latex.count("{") - latex.count("\\{") == latex.count("}") - latex.count("\\}")
    if field in ("suite", "status"):
        assert start in outputs["terminal"]
    json.loads(json_text(board.frame().to_dicts()))


def test_a_formula_is_text_and_a_number_stays_a_number_in_a_spreadsheet() -> None:
    texts = {"=1": "'=1", " =1": "'=1", "\t=1": "'=1", "@a": "'@a", "-a": "'-a", "-1+a": "'-1+a", "＝1": "'＝1"}
    numbers = ("-1", "-0.5", "+1e5", "0", "a=1", "")
    assert {text: cell(text) for text in texts} == texts
    assert [cell(text) for text in numbers] == [*numbers]
    rows = list(csv.DictReader(io.StringIO(rendered(board_of([row("base"), row("one")]), "csv").decode())))
    assert float(rows[1]["score"]) < 0


def test_what_is_cut_says_so() -> None:
    assert plain("a" * 30, 10) == "a" * 10 + "… (+20 characters)"
    assert "… (+" in rendered(board_of([row("base"), row("m" * 500)]), "terminal").decode().replace("\n", "")


@pytest.mark.parametrize("text", [WORD, "a\ud800b", "a\x85\u2028\u2029b", "1. a", "- a", "+ a", "# a #", "    a",
                                  "~~a~~", "``", "a\\", "&amp;", "<!-- a", "a  \nb", "=", "---", "- - -",
                                  "==="])  # fmt: skip
def test_text_stays_the_same_text_in_markdown_and_json(text: str) -> None:
    assert check_markdown(f"{markdown(text, 9_999)}\n", headings=0) == line(text, 9_999)
    in_code = PARSER.parse(f"x {code(text, 9_999)} y\n")[1].children or []
    assert [child.content for child in in_code if child.type == "code_inline"] == [line(text, 9_999)]
    assert check_markdown(f"- {markdown(text)}\n- b\n", headings=0).endswith("b")
    said = json_text([text])
    assert acting(said) == set()
    assert json.loads(said) == [text.replace("\ud800", "\ufffd")]
    assert said.encode()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.slow
def test_a_browser_runs_nothing_that_a_page_should_not_hold(tmp_path: Path) -> None:
    page = to_html(board_of(poisoned("method")))
    evil = "<h1><script>document.title='script'</script><img src=x onerror=\"document.title='handler'\">"
    (tmp_path / "page.html").write_text(page.replace("<h1>", evil, 1), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    seen = subprocess.run([*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, check=True)
    assert "<title>unmemorize leaderboard</title>" in seen.stdout


# Commands.

PLUGIN = f"""
from unmemorize import Method, StrictConfig, hookimpl
WORD = {WORD!r}

class Settings(StrictConfig):
    ratio: float = 0.5
    __doc__ = WORD

class Poisoned(Method):
    __doc__ = WORD
    name, stage, Config, paper = "poisoned", "unlearn", Settings, WORD
    def apply(self, testbed, context):
        raise RuntimeError(WORD + "\\ud800")

@hookimpl
def register_methods():
    return [Poisoned]
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A suite with a poisoned description and method, beside an installed distribution with a poisoned name."""
    (tmp_path / "poison.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "broken.py").write_text(f"raise ValueError({WORD!r})\n", encoding="utf-8")
    installed = tmp_path / "installed" / "evil-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Name: evil\x1b[31m<b>\nVersion: 1\x9b\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text("[unmemorize]\nevil\x1b[31m[red] = no_such_module\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    files = json.dumps([str(TOY), str(tmp_path / "poison.py")])
    (tmp_path / "s.toml").write_text(
        f'name = "s"\ndescription = {json.dumps(WORD).replace(chr(127), "")}\n[plugins]\nfiles = {files}\n'
        '[testbed.t]\nprovider = "toy"\n[metric.extraction]\n[metric.accuracy]\n[method.poisoned]\n[method.durable]\n',
        encoding="utf-8",
    )
    return "s.toml"


COMMANDS = {
    "list": ("list", "methods", "--plugin", "poison.py"),
    "show a method": ("show", "poisoned", "--plugin", "poison.py"),
    "show a suite": ("show", "s.toml"),
    "show as JSON": ("show", "poisoned", "--plugin", "poison.py", "--json"),
    "plugins": ("plugins", "--plugin", "poison.py"),
    "a broken plugin": ("plugins", "--plugin", "broken.py"),
    "plan": ("plan", "s.toml"),
    "no such file": ("run", "\x1b[31m\u202e.toml"),
    "no such option": ("plugins", "--a\x1b[31m\u202e"),
    "an argument too many": ("plugins", "a\x1b[31m\u202e"),
    "no such method": ("mitigate", "m", "--method", "\x1b]0;a\x07", "--forget", "f", "--out", "o"),
}


CHECK = pytest.param(("check", "poisoned", "--plugin", "poison.py"), id="check", marks=pytest.mark.slow)


@pytest.mark.parametrize("arguments", [*(pytest.param(typed, id=name) for name, typed in COMMANDS.items()), CHECK])
def test_a_command_prints_text(arguments: tuple[str, ...], suite: str, typed: Any) -> None:
    done = typed(*arguments)
    assert acting(done.stdout + done.stderr) == set()
    assert "Traceback" not in done.stderr
    assert done.stdout or "error:" in done.stderr.lower()


def test_a_run_records_and_shows_what_a_plugin_said_as_text(suite: str, typed: Any, tmp_path: Path) -> None:
    done = typed("run", suite, "--results", "r")
    board = (tmp_path / "r" / "board.md").read_text(encoding="utf-8")
    for text in (done.stdout, done.stderr, board):
        assert acting(text) == set()
    assert "failed: poisoned (1 cell): RuntimeError: =1+1" in check_markdown(board, headings=1)
    shown = typed("board", "r", "--json").stdout
    assert acting(shown) == set()
    assert [row["method"] for row in json.loads(shown)] == ["base", "durable"]


def test_errors_are_text_and_not_endless() -> None:
    error = UnmemorizeError(f"a {WORD}\ud800" * 1_000, expected=WORD, fix=WORD)
    assert acting(str(error)) == set()
    assert len(str(error)) < 30_000
    assert isinstance(error.__reduce__(), tuple)


# What models write, and what is saved.


def window(text: str, source: str) -> FoundWindow:
    return FoundWindow([1, 2], 1, 1, text, text, source, 0, 0, -1.0, 1.0, 0.0, 2)


def test_what_a_model_says_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    findings = Findings((window(f"{WORD}\ud800", f"{WORD}.txt"),), 1, 1, 2, 0.1, {})
    _print_examples(findings)
    assert acting(capsys.readouterr().out) == set()
    findings.write(tmp_path / "found.jsonl")
    content = (tmp_path / "found.jsonl").read_text(encoding="utf-8")
    assert acting(content) == set()
    assert json.loads(content)["prompt_text"] == f"{WORD}\ufffd"


def test_a_model_card_is_a_card_whatever_its_model_and_method_are_called() -> None:
    value = {
        "metric": WORD,
        "set": WORD,
        "part": "all",
        "kind": "memorization",
        "before": 1.0,
        "after": None,
        "count": 1,
    }
    text = card({
        "source": {"model": WORD, f"{WORD} set": WORD}, "values": [value, value | {"set": "forget"}],
        "method": {"name": WORD, "distribution": WORD, "version": WORD, "config": {WORD: WORD}, "seed": 0},
        "edited": 1, "parameters": 2, "cost": {"total_seconds": 1.0}, "flags": [WORD],
    })  # fmt: skip
    assert acting(text) == set()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["unmemorize", "memorization-mitigation"],
    }  # fmt: skip
    assert line(WORD)[:24] in check_markdown(body, headings=1)


# What is nobody's business.

HOME = "/home/alice"
PRIVATE = {
    HOME: "~",
    f"{HOME}/a b/c.jsonl": "~/a b/c.jsonl",
    f"{HOME}2/x": "…/x",
    "/home/bob": "…",
    "/home/bob/x/y.txt and more": "…/y.txt and more",
    'File "/data/big set/a.py", line 3': 'File "…/a.py", line 3',
    f'File "{os.path.realpath(pl.__file__)}", line 2': 'File "polars/__init__.py", line 2',
    "/srv/a/b: no file; /c/d/e": "…/b: no file; …/e",
    "t[model=/data/x/y,layers=2]": "t[model=…/y,layers=2]",
    r"C:\Users\alice\x.txt": "…/x.txt",
    "https://alice:password@x.y/a": "https://[hidden]@x.y/a",
    "token hf_abcdefghijkl": "token [hidden]",
    "sent s3cr3t-s3cr3t": "sent [hidden]",
    "a\ud800b": "a\ufffdb",
    **{same: same for same in ("a/b", "../a/b", "package:a/b", "https://x.y/a/b", "loss / accuracy", "1/2", "", "\\n")},
}


@pytest.mark.parametrize("text", PRIVATE)
def test_paths_and_tokens_are_hidden(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-s3cr3t")
    assert public(text) == PRIVATE[text]
    assert public({text: [text, 1, None]}) == {PRIVATE[text]: [PRIVATE[text], 1, None]}


def test_paths_of_settings_stay_whole_but_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.setenv("LOGNAME", "alice")
    settings = {
        "/data/models/x": "/data/models/x",
        f"{HOME}/a b/c.jsonl": "~/a b/c.jsonl",
        "/scratch/alice/x": "/scratch/…/x",
        "/home/bob/x/y": "/home/…/x/y",
        r"C:\Users\bob\x.txt": r"C:\Users\…\x.txt",
        "token hf_abcdefghijkl": "token [hidden]",
    }
    assert public(list(settings), whole_paths=True) == list(settings.values())


def test_records_and_exports_say_nothing_about_whose_machine_it_was(
    with_tokenizer: Path, typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "alice-private"
    secret = "s3cr3t-s3cr3t"
    for name, value in (("HOME", str(home)), ("HF_TOKEN", secret), ("USER", "alice-private")):
        monkeypatch.setenv(name, value)
    shutil.copytree(with_tokenizer, home / "model")
    for name, shift in (("f", 1), ("k", 3)):
        rows = [{"tokens": [(i * shift * 5 + j * shift) % 26 + 3 for j in range(12)]} for i in range(6)]
        (home / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    (home / "own.py").write_text(
        "from unmemorize import Method, hookimpl\nclass Own(Method):\n    '''Fails.'''\n"
        "    name, stage = 'own', 'unlearn'\n"
        f"    def apply(self, testbed, context):\n        raise OSError(2, '{secret}', __file__)\n"
        "@hookimpl\ndef register_methods():\n    return [Own]\n"
    )
    (tmp_path / "s.toml").write_text(
        f'name = "s"\n[plugins]\nfiles = ["{home}/own.py"]\n[testbed.t]\nprovider = "huggingface"\n'
        f'model = "{home}/model"\n'
        f'forget = "{home}/f.jsonl"\nretain = "{home}/k.jsonl"\nprompt = 4\nsuffix = 4\nnear_duplicates = "keep"\n'
        "[metric.extraction]\n[metric.accuracy]\n[method.own]\n"
    )
    assert typed("run", "s.toml", "--results", "r", "--quiet").status == 1
    assert typed("export", "s.toml", "--out", "e", "--quiet").status == 0
    sets = ("--forget", f"{home}/f.jsonl", "--retain", f"{home}/k.jsonl", "--prompt", "4", "--suffix", "4")
    asked = ("--method", "random_weights", "--near-duplicates", "keep", "--out", "m", "--quiet")
    assert typed("mitigate", f"{home}/model", *sets, *asked).status == 0
    written = [path for place in ("r", "e", "m") for path in (tmp_path / place).rglob("*") if path.is_file()]
    assert len(written) > 8
    for path in written:
        content = path.read_bytes()
        assert b"alice-private" not in content, path
        assert secret.encode() not in content, path
    lines = [one for path in written if path.suffix == ".jsonl" for one in path.read_text().splitlines()]
    failed = [json.loads(one) for one in lines if '"failed"' in one]
    assert [("~/own.py" in record["traceback"], record["reason"].count("~/own.py")) for record in failed] == [(True, 1)]


def test_what_a_plugin_says_is_cut_in_a_record(record_fields: dict[str, Any]) -> None:
    made = Record(**record_fields | {"reason": WORD * 100, "traceback": WORD * 1_000})
    assert made.reason is not None
    assert made.traceback is not None
    assert acting(made.reason + made.traceback) == set()
    assert (len(made.reason) < 9_000, len(made.traceback) < 80_000) == (True, True)
    assert "… (+" in made.reason


@pytest.fixture
def record_fields() -> dict[str, Any]:
    fields = row("one", "failed")
    text = ("provider_config", "fingerprint", "method_config", "metrics", "curve", "seconds", "notes", "testbed_facts")
    return {name: json.loads(fields[name]) if name in (*text, "environment") else fields[name] for name in fields}


# Names that become files.

NAMES = ("../x", "/etc/x", "a/b", "a\\b", "..", ".", "", "a\0b", "CON", "aux.txt", "x" * 300, "é" * 300, "\ud800",
         "a:b",         "-rf", ".hidden", "a b", "\u202ex")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    made = file_name(name)
    (tmp_path / f"{made}.jsonl").write_text("")
    assert [path.parent for path in tmp_path.rglob("*")] == [tmp_path]
    assert len(f"{made}.jsonl".encode()) < 200
    assert not re.match(r"[.-]|(con|aux)(\.|$)", made, re.IGNORECASE)
    assert file_name(made) == made


def test_names_that_differ_make_files_that_differ() -> None:
    assert len({file_name(name) for name in (*NAMES, "a-b", "a.b", "noise[layers=2]")}) == len(NAMES) + 3
    assert file_name("noise[layers=2]") == "noise[layers=2]"


# Model folders.

CONFIGS: dict[str, Any] = {
    "deep": "[" * 100_000,
    "nested": {"rope_scaling": json.loads("[" * 200 + "]" * 200)},
    "a type that is a list": {"model_type": ["gpt2"]},
    "endless layers": {"n_layer": 10**8},
    "endless heads": {"n_head": 10**30},
    "a size that is text": {"n_embd": "x"},
    "a dtype that is none": {"dtype": "evil.dtype", "torch_dtype": "evil"},
    "invalid UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS)
def test_an_odd_model_folder_is_refused_in_three_parts(change: Any, folder: Path) -> None:
    path = folder / "config.json"
    content = json.dumps(json.loads(path.read_text()) | change) if isinstance(change, dict) else change
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError):
        open_model(ModelSource(model=str(folder)))


# The code.


def test_text_goes_out_by_one_road() -> None:
    """Nothing prints, escapes or writes JSON by itself."""
    allowed = {
        r"click\.s?echo\(": {"echo.py", "screen.py", "__init__.py", "board.py"},
        r"from html import|rich\.markup": {"untrusted.py"},
        r"ensure_ascii=False": {"untrusted.py", "schema.py", "lines.py", "log.py", "fields.py", "tokenization.py"},
    }
    for pattern, files in allowed.items():
        sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "harness").rglob("*.py")}
        found = {path.name for path, source in sources.items() if re.search(pattern, source)}
        assert found <= files, pattern
