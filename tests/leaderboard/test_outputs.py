from __future__ import annotations

import io
import itertools
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import polars as pl
import pytest

from unmemorize.errors import UnknownNameError
from unmemorize.leaderboard.board import COLUMNS, build_board
from unmemorize.leaderboard.flat import to_csv, to_parquet
from unmemorize.leaderboard.formats import FORMATS, rendered
from unmemorize.leaderboard.latex import to_latex
from unmemorize.leaderboard.markdown import to_markdown
from unmemorize.leaderboard.page import to_html
from unmemorize.leaderboard.scatter import to_svg

EVIL = '<script>alert("x")</script> & "quotes" | pipe $ % # _ { } ~ ^ \\'


@pytest.fixture
def board(frame, rich_records):
    return build_board(frame(*rich_records))


@pytest.fixture
def evil(frame, base, record):
    failed = record("greedy", status="failed", reason=EVIL, testbed=EVIL)
    return build_board(frame(base, record(EVIL, testbed=EVIL, flags=[EVIL]), record("b", testbed=EVIL), failed))


class Page(HTMLParser):
    """Collects what a browser would see, and checks that every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text, self.addresses = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "br", "path", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def test_markdown_is_one_table_of_even_rows(board):
    lines = [line for line in to_markdown(board).splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 2 + 7
    assert len(counts) == 1
    assert "| memorized % before | memorized % after |" in lines[0]
    assert "| 1 | ◆ | balanced\\_subnet |" in lines[3]
    assert "- failed: greedy (1 cell)" in to_markdown(board)
    assert "**collapsed**: utility lost more than 10 %" in to_markdown(board)


def test_markdown_escapes_what_would_break_it(evil):
    text = to_markdown(evil)
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for table in (rows[:4], rows[4:]):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_csv_and_parquet_hold_the_flat_frame(board):
    frame = board.frame()
    read = pl.read_parquet(io.BytesIO(to_parquet(board)))
    assert read.equals(frame)
    assert read.columns == list(COLUMNS)
    csv = pl.read_csv(io.StringIO(to_csv(board)))
    assert csv.columns == list(COLUMNS)
    assert csv["score"].to_list() == pytest.approx(frame["score"].to_list())
    needs = dict(csv.select("method", "needs").rows())
    assert needs["balanced_subnet"] == "forget;retain"


def test_latex_has_a_cell_for_every_column(board):
    text = to_latex(board)
    (align,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 7
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body} == {len(align)}
    assert all(line.endswith(r"\\") for line in body)
    assert r"balanced\_subnet$^{d}$ $\blacklozenge$" in text
    assert "(d) sees-more:" in text
    assert "goldfish comes from unmemorize-goldfish 1.2.0." in text


def test_latex_escapes_its_special_characters(evil):
    text = to_latex(evil)
    assert r"\textless{}script\textgreater{}" in text
    assert r"\$ \% \# \_ \{ \} \textasciitilde{} \textasciicircum{} \textbackslash{}" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a LaTeX installation")
def test_latex_compiles(evil, tmp_path):
    source = "\\documentclass{article}\\usepackage{booktabs,amssymb}\\begin{document}%s\\end{document}"
    (tmp_path / "board.tex").write_text(source % to_latex(evil))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_the_page_is_well_formed_and_complete(board):
    page = Page(to_html(board))
    assert len(page.rows) == 1 + 7
    assert {len(row) for row in page.rows} == {len(page.rows[0])}
    methods = [next(cell for cell in row if cell and cell[0].isalpha()) for row in page.rows[1:]]
    assert methods[:3] == ["base", "balanced_subnet", "activations"]
    assert any("unmemorize-goldfish 1.2.0" in cell for row in page.rows for cell in row)
    assert any("greedy diverged" in text for text in page.text)


def test_the_page_needs_nothing_from_elsewhere(board):
    text = to_html(board)
    assert Page(text).addresses == []
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_escapes_what_records_say(evil):
    text = to_html(evil)
    assert text.count("<script>") == 1
    assert "alert(&quot;x&quot;)" in text
    assert Page(text).tags.count("script") == 1


def test_the_page_can_be_sorted_by_exact_values(board):
    keys = re.findall(r'<td class="right score" data-sort="([^"]*)">', to_html(board))
    assert [float(key) for key in keys] == board.frame()["score"].to_list()


def test_the_picture_shows_every_row_once(board):
    (table,) = board.tables
    picture = ET.fromstring(to_svg(table))
    shapes = [element for element in picture if element.tag in ("circle", "rect")]
    assert len(shapes) == table.rows.height
    assert [element.find("title").text.split(":")[0] for element in shapes] == table.rows["method"].to_list()
    words = {element.text for element in picture.iter("text")}
    assert set(table.rows["method"]) | {"memorized after, %", "accuracy after"} <= words


def test_the_best_corner_of_the_picture_is_the_upper_left(frame, base, record):
    def place(utility, way):
        records = [base, record("good", (96.0, 1.0), utility[0]), record("bad", (96.0, 90.0), utility[1])]
        values = [
            [v.model_copy(update={"direction": way if v.set == "holdout" else "lower"}) for v in r.values]
            for r in records
        ]
        turned = [r.model_copy(update={"values": v}) for r, v in zip(records, values, strict=True)]
        picture = ET.fromstring(to_svg(build_board(frame(*turned)).tables[0]))
        circles = {c.find("title").text.split(":")[0]: c for c in picture if c.tag == "circle"}
        return {name: (float(c.get("cx")), float(c.get("cy"))) for name, c in circles.items()}

    for utility, way in ((((94, 93.0), (94, 50.0)), "higher"), (((94, 95.0), (94, 150.0)), "lower")):
        places = place(utility, way)
        assert places["good"][0] < places["bad"][0]
        assert places["good"][1] < places["bad"][1]


def test_names_in_the_picture_do_not_lie_on_each_other(frame, base, record):
    crowd = [record(f"method_{n}", (96.0, 4.0 + n / 100)) for n in range(8)]
    picture = ET.fromstring(to_svg(build_board(frame(base, *crowd)).tables[0]))
    heights = sorted(float(t.get("y")) for t in picture.iter("text") if (t.text or "").startswith("method_"))
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 12


def test_there_is_no_picture_of_a_single_row(frame, base):
    assert to_svg(build_board(frame(base)).tables[0]) == ""


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_can_show_every_state_of_a_run(kind, frame, rich_records, record):
    nothing = [record(status="failed", reason="x")]
    for records in (rich_records, rich_records[:1], rich_records[1:2], nothing):
        assert rendered(build_board(frame(*records)), kind)


def test_an_unknown_format_names_those_there_are(board):
    with pytest.raises(UnknownNameError, match="no format is called 'markdwon'") as error:
        rendered(board, "markdwon")
    assert error.value.expected.startswith("one of markdown")
