"""Places are found on the disk and in packages, and hashed by content."""

from __future__ import annotations

from pathlib import Path

import pytest

import unmemorize
from unmemorize.errors import DataError
from unmemorize.files.places import digest_of, located


def test_a_package_and_a_path_in_it_are_found() -> None:
    home = Path(unmemorize.__file__).parent
    assert located("package:unmemorize", "texts") == home
    assert located("package:unmemorize/errors.py", "texts") == home / "errors.py"


def test_what_is_not_there_names_its_setting_and_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(DataError, match=r"texts = .*: there is no file or folder 'some.txt'") as error:
        located(str(tmp_path / "some.txt"), "texts")
    assert "beside it are other.txt" in error.value.expected
    assert error.value.fix == "correct the path that texts names"


def test_a_module_that_is_no_package_is_refused() -> None:
    with pytest.raises(DataError, match="no package 'pydoc' is installed") as error:
        located("package:pydoc/x", "texts")
    assert error.value.fix == "pip install pydoc"


def test_the_digest_tells_names_and_contents_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    before = digest_of([one])
    assert before != digest_of([two])
    one.write_text("other")
    assert digest_of([one]) != before
