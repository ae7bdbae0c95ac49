"""Write the pages that are made from the code and from committed results: `python docs/build.py`.

A test compares every page with what this would write, so that none of them can rot. Pages written by hand
(docs/your_method.md, docs/contracts.md, ...) have places that are filled: `<!-- KIND ARGUMENT -->` to `<!-- end -->`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unmemorize.registry.manager import Registry

ROOT = Path(__file__).resolve().parents[1]


def pages() -> dict[str, str]:
    """Return every generated or filled page by its path from the root."""
    from writing import api, boards, command_line, conformance, hooks, places, plugins, published, speed

    registry = Registry.load("none")
    made = {
        "docs/methods.md": plugins.methods_page(registry),
        "docs/metrics.md": plugins.metrics_page(registry),
        "docs/providers.md": plugins.providers_page(registry),
        "docs/command_line.md": command_line.command_line_page(),
        "docs/flags.md": boards.flags_page(),
        "docs/api.md": api.api_page(),
        "docs/conformance.md": conformance.conformance_page(),
        **hooks.pages(),
    }
    committed = dict(boards.published())
    for name, board in committed.items():
        made[f"leaderboards/{name}/board.md"] = boards.board_page(name, board)
    made["docs/published.md"] = published.published_page(committed)
    made["docs/speed.md"] = speed.speed_page()
    for path in boards.PAGES:
        made[path] = boards.with_boards(_read(path), committed)
    for path in places.PAGES:
        made[path] = places.filled_page(_read(path))
    return made


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def main() -> None:
    """Write every page, or with --check fail if one is stale."""
    stale = {path: text for path, text in pages().items() if not _same(ROOT / path, text)}
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}; run `python docs/build.py`" if stale else 0)
    for path, text in stale.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
