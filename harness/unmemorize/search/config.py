"""The settings of a search: everything beside model and texts that decides what is found."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.data.corpora import TEXT_FILES
from unmemorize.search.triviality import Trivial

SEARCHED = (
    *TEXT_FILES,
    *("LICEN[CS]E*", "COPYING*", "NOTICE*", "README*", "AUTHORS*"),
    *("*.html", "*.xml", "*.tex", "*.yaml", "*.yml", "*.toml"),
    *("*.py", "*.pyi", "*.js", "*.ts", "*.css", "*.c", "*.h", "*.cc", "*.cpp", "*.hpp", "*.java", "*.go", "*.rs"),
    *("*.sh", "*.rb", "*.php", "*.sql", "*.r", "*.R"),
)
"""The files of a folder that are searched: prose, mark-up, code; tables and JSON only where `include` says so."""

Tokens = Annotated[int, Field(ge=1)]


class FindConfig(StrictConfig):
    """How texts are searched for windows that a model regurgitates.

    Prompt and suffix are those of Carlini et al. 2023 as used for Pythia (Biderman et al. 2023): 32 + 32 tokens.
    """

    prompt: Tokens = 32
    """Tokens of a window that the model is shown."""
    suffix: Tokens = 32
    """Tokens of a window that must come back."""
    stride: Tokens = 16
    """Tokens from the start of one window to the start of the next; 1 misses nothing and takes 16 times as long."""
    include: Annotated[tuple[str, ...], Field(min_length=1)] = SEARCHED
    """Patterns of the files that are read of a folder, matched with name and path: `*.txt`, `docs/*`."""
    special_tokens: bool = True
    """Whether what the tokenizer itself puts before a text (`<s>`) stands in front of each of its windows."""
    limit_tokens: Tokens | None = None
    """Read only so many tokens, from the beginning; none: everything."""
    copy_share: Annotated[float, Field(gt=0, le=1)] = Trivial().copy_share
    """A window is trivial from this share of suffix 4-grams that already occur in its prompt on."""
    distinct: Annotated[int, Field(ge=0)] | None = Trivial().distinct
    """It is trivial with fewer distinct suffix tokens; none: 16, or half of a suffix of fewer than 32 tokens."""


class SearchCall(StrictConfig):
    """What a call of `find` says beside the settings of the search: it changes no result."""

    batch: Tokens | None = None
    """Windows that are read at once; none: as many as keep the logits at 64 MiB."""
