"""Places are found on the disk and in packages, and hashed by content."""

from __future__ import annotations

from pathlib import Path

import pytest

import unmemorize
from unmemorize.errors import DataError
from unmemorize.files.places import cache_folder, check_new, digest_of, located
from unmemorize.models.origins import find_origin


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


@pytest.mark.parametrize("place", ["./" + "y" * 300, "~nobody-of-this-name/m", f"package:unmemorize/{'z' * 300}"])
def test_a_name_that_the_system_refuses_is_an_error_in_three_parts(place: str) -> None:
    with pytest.raises(DataError, match=r"model = .*(File name too long|Could not determine home directory)"):
        located(place, "model")
    with pytest.raises(DataError, match="model = "):
        find_origin(place)


@pytest.mark.parametrize("name", ["z" * 300, "a b/c", " ", "x\0y", "a--b"])
def test_a_name_that_no_hub_takes_is_not_looked_up(name: str) -> None:
    with pytest.raises(DataError, match="neither a path that exists nor a hub id"):
        find_origin(name)


def test_without_a_home_the_cache_is_a_temporary_folder_that_nobody_else_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("UNMEMORIZE_CACHE", raising=False)
    place = cache_folder()
    assert (place.parent, place.stat().st_mode & 0o777, cache_folder()) == (tmp_path, 0o700, place)
    place.chmod(0o777)  # as somebody else could have made it
    assert cache_folder() != place


def test_a_new_folder_of_an_impossible_name_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        check_new(tmp_path / ("x" * 300), "name another folder")
