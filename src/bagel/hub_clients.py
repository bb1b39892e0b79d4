"""The two hubs behind one shape: list a repository's top folder, fetch one file of it, say in one sentence
what went wrong. Each speaks through its own client library, imported only when the hub is used."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bagel.errors import BagelError

Source = Literal["huggingface", "modelscope"]


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it; `sha256` or the git blob's `git_sha1` where the hub gives one."""

    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


class Client(Protocol):
    def files(self, name: str) -> tuple[str, list[RemoteFile]]:
        """The revision to fetch from, and the files of the repository's top folder."""

    def fetch(self, name: str, revision: str, file: RemoteFile, folder: Path) -> None:
        """Leave `file` in `folder`; what an earlier call got into that folder is not fetched again."""


class HuggingFace:
    def __init__(self) -> None:
        try:
            import huggingface_hub.file_download as library
        except ImportError as error:
            raise _needs("huggingface_hub", "hub") from error
        self._library = library

    def files(self, name: str) -> tuple[str, list[RemoteFile]]:
        from huggingface_hub import HfApi, constants

        with _explained(name, "huggingface"):
            info = HfApi(endpoint=constants.ENDPOINT).model_info(
                name, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        found = [
            RemoteFile(s.rfilename, s.size, getattr(s.lfs, "sha256", None), None if s.lfs else s.blob_id)
            for s in info.siblings or []
            if s.size is not None
        ]
        return str(info.sha), found

    def fetch(self, name: str, revision: str, file: RemoteFile, folder: Path) -> None:
        """By the library's `http_get`, not `hf_hub_download`: recent versions of the latter throw away what
        they have when they are interrupted, and 29 GB would start over."""
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers

        part = folder / file.name
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        with _explained(name, "huggingface"), part.open("ab") as out, _quiet():
            self._library.http_get(
                self._library.hf_hub_url(name, file.name, revision=revision, endpoint=constants.ENDPOINT),
                out,
                resume_size=part.stat().st_size,
                headers=build_hf_headers(),
                expected_size=file.size,
            )


class ModelScope:
    def __init__(self) -> None:
        try:
            import modelscope_hub as library
        except ImportError as error:
            raise _needs("modelscope", "modelscope") from error
        self._library = library

    def files(self, name: str) -> tuple[str, list[RemoteFile]]:
        with _explained(name, "modelscope"), _quiet():
            found = self._library.HubApi().list_repo_files(name, "model", revision="master", recursive=False)
        return "master", [RemoteFile(f.path, f.size, f.sha256) for f in found if not f.is_dir]

    def fetch(self, name: str, revision: str, file: RemoteFile, folder: Path) -> None:
        """The library gives each file one hour in all; we go on as long as an hour brings something."""
        before = held(folder)
        with _explained(name, "modelscope"), _quiet():
            try:
                self._library.HubApi().download_file(
                    name,
                    "model",
                    file.name,
                    revision=revision,
                    local_dir=folder,
                    file_size=file.size,
                    expected_sha256=file.sha256,
                )
            except self._library.RequestTimeoutError:
                if held(folder) <= before:
                    raise
                self.fetch(name, revision, file, folder)


def connect(source: Source) -> Client:
    return HuggingFace() if source == "huggingface" else ModelScope()


def held(folder: Path) -> int:
    """Bytes below `folder`, where a client's threads may be renaming and removing files meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(root) / name).stat().st_size
    return total


def _needs(library: str, extra: str) -> BagelError:
    return BagelError(f"Downloading needs the {library} library: run `pip install 'bagel-mot[{extra}]'`.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Both libraries draw bars of their own; ours stands in their place."""
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _explained(name: str, source: Source) -> Iterator[None]:
    """Whatever the library raises becomes one sentence for the user, the original as its cause."""
    try:
        yield
    except BagelError:
        raise
    except Exception as error:
        raise BagelError(_explain(error, name, source)) from error


_LABEL = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
_LOGIN = {"huggingface": "`hf auth login`", "modelscope": "`modelscope login`"}
_AGAIN = "run the same command again, it goes on where it stopped"


def _explain(error: Exception, name: str, source: Source) -> str:
    hub, other = _LABEL[source], "modelscope" if source == "huggingface" else "huggingface"
    chain = _chain(error)
    kinds = " ".join(kind.__name__ for e in chain for kind in type(e).__mro__)
    status = next(filter(None, map(_status, chain)), 0)
    numbers = {e.errno for e in chain if isinstance(e, OSError)}
    if errno.ENOSPC in numbers or errno.EDQUOT in numbers:
        return f"The disk is full: free some space (or choose another --to) and {_AGAIN}."
    if numbers & {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"The folder cannot be written ({error}): choose another --to."
    if status == 404:
        return f"There is no model {name} at {hub}: check the name (org/name), or try --from {other}."
    if status in (401, 403):
        return (
            f"{hub} does not give {name} without the right account ({status}): check the name, accept the "
            f"model's terms on its page if it has any, and log in with {_LOGIN[source]}."
        )
    if status == 429:
        return f"{hub} asks to slow down (429): wait some minutes and {_AGAIN}."
    if status >= 500:
        return f"{hub} is in trouble just now ({status}): wait some minutes and {_AGAIN}."
    if "OfflineMode" in kinds:
        return f"{name} cannot be fetched while HF_HUB_OFFLINE is set: unset it, or give a local folder."
    if "Integrity" in kinds or "SizeMismatch" in kinds or "Consistency check" in str(error):
        return f"{hub} sent a damaged or cut file of {name}: {_AGAIN}."
    if "Timeout" in kinds and not ("ConnectionRefused" in kinds or "gaierror" in kinds):
        return f"{hub} did not answer in time: check the network or proxy and {_AGAIN}."
    if any(word in kinds for word in ("Timeout", "Connect", "Network", "Protocol")):
        return f"{hub} cannot be reached: check the network or proxy and {_AGAIN}, or try --from {other}."
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{hub} could not deliver {name} ({type(error).__name__}: {first_line})."


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status(error: BaseException) -> int | None:
    """The HTTP status, which the libraries keep on the error or on its response."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if status is not None else getattr(error, "status_code", None)
