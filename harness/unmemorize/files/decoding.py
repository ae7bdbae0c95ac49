"""Bytes of text files as text: UTF-8, with or without its mark."""

from __future__ import annotations

from unmemorize.errors import DataError

_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def decoded(content: bytes, name: str, file: str, errors: str = "strict") -> str:
    """Return text from UTF-8, without the byte-order mark.

    Args:
        content: the bytes of the file.
        name: what errors call the file.
        file: its name, for the command that converts it.
        errors: what becomes of bytes that are no UTF-8, as for `bytes.decode`; UTF-16 is then read, too.

    Raises:
        DataError: the bytes are no UTF-8, or start with the mark of UTF-16.
    """
    encoding = _MARKS.get(content[:2])
    try:
        if encoding is None or errors != "strict":
            return content.decode(encoding or "utf-8-sig", errors)
        problem = "starts with the mark of UTF-16"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
    raise DataError(
        f"{name} {problem}",
        expected="text in UTF-8",
        fix=f"convert it, e.g. with `iconv -f {encoding or 'latin1'} -t utf-8 {file} > utf8-{file}`",
    )
