"""A new plugin package, written from templates: complete, installable, with its own tests."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from unmemorize.errors import ConfigError
from unmemorize.files.atomic import atomic_folder
from unmemorize.files.places import check_new, writing

KINDS = ("method", "metric", "provider")
STAGES = ("unlearn", "finetune", "train", "decode")

_SUMMARIES = {
    "method": "A mitigation of memorization in language models",
    "metric": "A metric of memorization in language models",
    "provider": "A testbed of memorization in language models",
}
_TRIES = {
    "method": "unmemorize run quick --methods {name}",
    "metric": "unmemorize run quick --methods balanced_subnet --metrics extraction,accuracy,{name}",
    "provider": "unmemorize run {name}.toml",
}
_STORIES = {
    "method": "`check` runs the conformance suite on tiny models in seconds; `run` ranks the method on a small testbed "
    "beside the unedited model.",
    "metric": "`check` runs the conformance suite on tiny models in seconds; `run` measures a small testbed with it, "
    "before and after a mitigation.",
    "provider": "`check` runs the conformance suite; `run` measures the testbed, lets two methods act on it, and "
    "prints the board.",
}


class PackagePlan(NamedTuple):
    """What is to be written."""

    kind: str
    name: str
    stage: str = "unlearn"

    @property
    def module(self) -> str:
        """The import name of the package's one module."""
        return f"unmemorize_{self.name}"

    @property
    def distribution(self) -> str:
        """The name that pip knows."""
        return self.module.replace("_", "-")

    def words(self) -> Mapping[str, str]:
        """Return what stands in the templates for each word in double braces."""
        title = "".join(part.capitalize() for part in self.name.split("_"))
        return {
            "name": self.name,
            "kind": self.kind,
            "Class": title,
            "module": self.module,
            "distribution": self.distribution,
            "version": _version(),
            "summary": f"{_SUMMARIES[self.kind]}: {self.name}.",
            "try": _TRIES[self.kind].format(name=self.name),
            "story": _STORIES[self.kind],
        }


def write_package(plan: PackagePlan, folder: Path) -> list[Path]:
    """Write the package into the new folder `folder`, and return the paths of its files.

    Raises:
        ConfigError: the name cannot be a plugin's.
        DataError: the folder exists already and is not empty, or cannot be written.
    """
    _check_name(plan)
    elsewhere = f"unmemorize new {plan.kind} {plan.name} --folder ANOTHER"
    check_new(folder, elsewhere)
    texts = dict(_texts(plan))
    with writing(folder, elsewhere), atomic_folder(folder, last="pyproject.toml") as partial:
        for place, text in texts.items():
            (partial / place).parent.mkdir(parents=True, exist_ok=True)
            (partial / place).write_text(text, encoding="utf-8")
    return [folder / place for place in texts]


_BASE = "base"


def _check_name(plan: PackagePlan) -> None:
    taken = keyword.iskeyword(plan.name) or (plan.kind == "method" and plan.name == _BASE)
    if re.fullmatch(r"[a-z][a-z0-9_]*", plan.name) and not taken:
        return
    better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plan.name).lower()).strip("_0123456789")
    raise ConfigError(
        f"{plan.name!r} cannot be the name of a {plan.kind}",
        expected="snake_case: small letters, digits, underscores, a letter first; no word of Python, and for a method "
        f"not {_BASE!r}, the row of the unmitigated model",
        fix=f"unmemorize new {plan.kind} {better if better and better != plan.name else 'my_' + plan.kind}",
    )


def _texts(plan: PackagePlan) -> Iterator[tuple[str, str]]:
    """Yield the place of every file of the package, and its text."""
    own = {"method": plan.stage, "metric": "metric", "provider": "provider"}[plan.kind]
    templates = {
        "pyproject.toml": "common/pyproject.toml.txt",
        "README.md": "common/README.md",
        ".gitignore": "common/gitignore",
        ".github/workflows/test.yml": "common/test.yml",
        f"{plan.module}.py": f"{plan.kind}/{own}.py.txt",
        f"tests/test_{plan.name}.py": f"{plan.kind}/test_{own}.py.txt",
    }
    if plan.kind == "provider":
        templates[f"{plan.name}.toml"] = "provider/suite.toml.txt"
    root = files("unmemorize.scaffold") / "templates"
    words = plan.words()
    for place, template in templates.items():
        yield place, _filled((root / template).read_text(encoding="utf-8"), words)


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"(?<!\$)\{\{(\w+)\}\}", lambda found: words[found[1]], text)


def _version() -> str:
    try:
        return version("unmemorize")
    except PackageNotFoundError:
        return "0"
