"""Single files from the Hugging Face hub, through its cache; every way in which that can fail, with what to type."""

from __future__ import annotations

from pathlib import Path

from unmemorize.errors import DataError, nearest
from unmemorize.files.error_reasons import reason_of


def fetched(repository: str, name: str, revision: str | None, *, instead: str) -> Path:
    """Return a file of a model repository, from the hub's cache or fetched into it; `instead` where it has no `name`.

    The name of the folder in which it lies is the commit.

    Raises:
        DataError: the hub cannot be reached and the cache has no such model or revision, or the hub does not give it.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except errors.GatedRepoError as error:
        raise _gated(repository) from error
    except errors.RepositoryNotFoundError as error:
        raise _unknown(repository) from error
    except errors.RevisionNotFoundError as error:
        raise _no_revision(repository, revision) from error
    except errors.EntryNotFoundError as error:
        other = fetched_if_there(repository, instead, revision)
        if other is not None:
            return other
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _not_cached(repository, revision) from error
        raise DataError(
            f"model = {repository!r}: the repository holds no {name}",
            expected=f"a repository with a model as transformers saves it ({name}, *.safetensors)",
            fix="name another repository; for one of GGUF files, download the file and name its path",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"model = {repository!r}: {name} could not be fetched: {reason_of(error)}",
            expected="a connection to the hub, and a cache folder that can be written",
            fix="try again, or set HF_HUB_CACHE to a folder that you may write",
        ) from error


def fetched_if_there(repository: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a model repository, or None if the repository (or the cache, offline) has none of that name."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except errors.EntryNotFoundError:
        return None


def _gated(repository: str) -> DataError:
    return DataError(
        f"model = {repository!r} is gated: its owners give access on request",
        expected="an account that was given access, and its token on this machine",
        fix=f"ask for access at https://huggingface.co/{repository}, then type `hf auth login`",
    )


def _unknown(repository: str) -> DataError:
    return DataError(
        f"model = {repository!r} is not on the hub, or it is private",
        expected=f"a hub id OWNER/NAME; in this machine's cache are {_cached_names(repository)}",
        fix="correct the name; for a private model type `hf auth login`; for a folder write ./FOLDER",
    )


def _no_revision(repository: str, revision: str | None) -> DataError:
    known = nearest(revision or "main", _cached_revisions(repository))
    return DataError(
        f"model = {repository!r} has no revision {revision!r}",
        expected="a branch, tag or commit of it" + (f"; cached are {', '.join(known)}" if known else ""),
        fix=f"see https://huggingface.co/{repository}/tree/main for its revisions, or remove revision",
    )


def _not_cached(repository: str, revision: str | None) -> DataError:
    known, wanted = _cached_revisions(repository), revision or "main"
    if known:
        return DataError(
            f"model = {repository!r}: revision {wanted!r} is not on this machine, and the hub was not reached",
            expected=f"one that is cached: {', '.join(nearest(wanted, known))}",
            fix=f"connect, and type `hf download {repository} --revision {wanted}`; or unset HF_HUB_OFFLINE",
        )
    return DataError(
        f"model = {repository!r} is not on this machine, and the hub was not reached",
        expected=f"a cached model ({_cached_names(repository)}), a folder, a file *.gguf, or a connection",
        fix=f"connect, and type `hf download {repository}`; or unset HF_HUB_OFFLINE; for a folder write ./FOLDER",
    )


def _folder(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _cached_revisions(repository: str) -> list[str]:
    references, snapshots = _folder(repository) / "refs", _folder(repository) / "snapshots"
    try:
        named = [path.relative_to(references).as_posix() for path in references.rglob("*") if path.is_file()]
        return sorted({*named, *(path.name for path in snapshots.glob("*"))})
    except OSError:  # a cache that may not be read says nothing
        return []


def _cached_names(repository: str) -> str:
    try:
        folders = [path.name for path in _folder(repository).parent.glob("models--*")]
    except OSError:
        folders = []
    names = [folder.removeprefix("models--").replace("--", "/") for folder in folders]
    return ", ".join(nearest(repository, names)) or "none"
