"""Model folders from Hugging Face or ModelScope: `download` fetches one, `resolve` finds one that is here.

A file is fetched into `<folder>/.bagel-download/`, checked there, and only then moved to its name: a name in
the folder always stands for a whole file, and an interrupted download goes on where it stopped."""

import hashlib
import json
import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from bagel.errors import BagelError, CheckpointError, InputError
from bagel.hub_bars import Bars
from bagel.hub_clients import Client, RemoteFile, Source, connect, held

_PUBLISHED, _PUBLISHED_FOLDER = "ByteDance-Seed/BAGEL-7B-MoT", "models/BAGEL-7B-MoT"
"""The released model, and the folder that the guides download it to, which looks like a name too."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_STAGING = ".bagel-download"
_MARK = ".bagel-download.json"  # whose folder this is, and whether it is whole
_INDEX = ".safetensors.index.json"
_HASH_BLOCK = 8 * 2**20
_log = logging.getLogger(__name__)


def download(name: str, *, source: Source = "huggingface", to: Path, progress: bool = True) -> Path:
    """Fetch the model `name` (org/name) into the folder `to` and return it; bars go to stderr.

    Only json, txt and safetensors files are fetched, never pickles or code; whole files already there are
    checked and kept. Raises BagelError with one sentence for anything the user can put right."""
    if source not in get_args(Source):
        raise InputError(f"There is no hub {source!r}: choose one of {', '.join(get_args(Source))}.")
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a model name: it has the form org/name.")
    to, client = Path(to).expanduser().absolute(), connect(source)
    revision, listed = client.files(name)
    files = _needed(name, listed)
    mark = {"name": name, "source": source}
    with _writing(to):
        with Bars(files, shown=progress) as bars:
            missing = [file for file in files if not _whole(to / file.name, file, bars)]
            _check_overwrite(to, missing, name)
            _check_disk(to, missing)
            to.mkdir(parents=True, exist_ok=True)
            _write_json(to / _MARK, {**mark, "complete": not missing})
            _remember(name, to)
            bars.start(present=[file for file in files if file not in missing])
            for file in missing:
                _fetch(client, name, revision, file, to, bars)
        _write_json(to / _MARK, {**mark, "complete": True})
        shutil.rmtree(to / _STAGING, ignore_errors=True)
    return to


def resolve(model: str) -> Path:
    """What `model` means: a folder, or a file of weights in one, as it is; else the folder of the hub name of a
    model that `download` fetched or that lies in the local Hugging Face cache. Never fetches; raises
    CheckpointError with the command."""
    try:
        folder = Path(model).expanduser()
        if folder.is_dir() or (folder.suffix in (".safetensors", ".gguf") and folder.is_file()):
            if folder.is_dir() and not os.access(folder, os.X_OK):
                raise CheckpointError(f"{folder} may not be entered; give yourself the right to (chmod u+rx).")
            return folder
    except (OSError, RuntimeError, ValueError) as error:  # too long, a null byte, a home that does not exist
        raise CheckpointError(f"{model[:200]!r} is no path of a model folder ({error}).") from None
    if folder.exists():
        raise CheckpointError(f"{model} is no model folder, nor a file of weights (.safetensors, .gguf) in one.")
    if not _NAME.fullmatch(model):
        raise CheckpointError(f"There is no model folder {model}: give a folder, or a hub name as org/name.")
    known = _read_json(_known_folders()).get(model)
    if known is not None:
        mark = _read_json(Path(known) / _MARK)
        if mark.get("name") == model and mark.get("complete"):
            return Path(known)
        if mark.get("name") == model:
            raise CheckpointError(
                f"The download of {model} into {known} is not finished: run "
                f"`{_command(model, mark['source'], known)}` to go on with it."
            )
    if (cached := _in_huggingface_cache(model)) is not None:
        return cached
    to = "models/" + model.split("/")[1]
    name = _PUBLISHED if model == _PUBLISHED_FOLDER else model
    raise CheckpointError(
        f"There is no folder {model}, nor was a model of that name downloaded: check the path, or run "
        f"`{_command(name, 'huggingface', to)}` (or --from modelscope)."
    )


def _command(name: str, source: str, to: str) -> str:
    return f"bagel download {name} --from {source} --to {shlex.quote(to)}"


def _in_huggingface_cache(name: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the library there is no cache to look in
        return None
    config = try_to_load_from_cache(name, "llm_config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    here = {path.name for path in folder.iterdir() if path.exists()}
    return folder if "ae.safetensors" in here and _weights(here) else None


def _needed(name: str, listed: list[RemoteFile]) -> list[RemoteFile]:
    """The files a BAGEL folder is made of, small ones first."""
    names = {file.name for file in listed if "/" not in file.name and "\\" not in file.name}
    weights = _weights(names)
    if "llm_config.json" not in names or not weights:
        lacking = "llm_config.json" if "llm_config.json" not in names else "safetensors weights"
        raise CheckpointError(f"{name} is not a BAGEL model: its repository holds no {lacking}.")
    texts = {n for n in names if n.endswith((".json", ".txt")) and not n.endswith(_INDEX)}
    wanted = texts | weights | names & {"ae.safetensors"}
    return sorted((file for file in listed if file.name in wanted), key=lambda file: file.size)


def _weights(names: Iterable[str]) -> set[str]:
    """ema.safetensors, else model.safetensors, else an index whose shards are all there, and these."""
    names = set(names)
    for single in ("ema.safetensors", "model.safetensors"):
        if single in names:
            return {single}
    for index in sorted(n for n in names if n.endswith(_INDEX)):
        stem = re.escape(index.removesuffix(_INDEX))
        shard = re.compile(stem + r"-\d+-of-(\d+)\.safetensors")
        found = {n: int(match[1]) for n in names if (match := shard.fullmatch(n))}
        if found and set(found.values()) == {len(found)}:
            return {index, *found}
    return set()


def _fetch(client: Client, name: str, revision: str, file: RemoteFile, to: Path, bars: Bars) -> None:
    staged = _staged(to, file)
    staged.mkdir(parents=True, exist_ok=True)
    with bars.fetching(file, staged):
        client.fetch(name, revision, file, staged)
    if not _whole(staged / file.name, file, bars):
        shutil.rmtree(staged)
        raise BagelError(
            f"{file.name} of {name} arrived damaged (its size or checksum is not what the hub announced) "
            "and was thrown away: run the same command again."
        )
    (staged / file.name).replace(to / file.name)
    shutil.rmtree(staged)


def _staged(to: Path, file: RemoteFile) -> Path:
    """Where `file` is fetched: a folder of its own, another one when the hub changes the file."""
    version = file.sha256 or file.git_sha1 or str(file.size)
    return to / _STAGING / f"{file.name}.{version[:16]}"


def _whole(path: Path, file: RemoteFile, bars: Bars) -> bool:
    """Is `path` the hub's file, by size and by the checksum the hub gives (if it gives one)?"""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        digest, expected = hashlib.sha256(), file.sha256
    elif file.git_sha1 is not None:
        digest, expected = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False), file.git_sha1
    else:
        return True
    with bars.checking(file) as advance, path.open("rb") as content:
        while block := content.read(_HASH_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest() == expected


def _check_overwrite(to: Path, missing: list[RemoteFile], name: str) -> None:
    """Only what an earlier download of this model left may be replaced."""
    taken = [file.name for file in missing if (to / file.name).exists()]
    if taken and _read_json(to / _MARK).get("name") != name:
        raise InputError(f"{to} already holds another {', '.join(taken)}: move it away or choose another --to.")


def _check_disk(to: Path, missing: list[RemoteFile]) -> None:
    needed = sum(max(0, file.size - held(_staged(to, file))) for file in missing)
    free = shutil.disk_usage(next(folder for folder in (to, *to.parents) if folder.exists())).free
    if needed > free:
        raise BagelError(
            f"{to} has {free:,} bytes free and the download needs {needed:,}: free {needed - free:,} bytes "
            f"or choose a folder on a larger disk with --to."
        )


@contextmanager
def _writing(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{to} cannot be written ({reason}): choose another --to.") from error


def _known_folders() -> Path:
    """Where the folders of earlier downloads are noted, so that `resolve` finds them by name."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "bagel" / "downloads.json"


def _remember(name: str, to: Path) -> None:
    path = _known_folders()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_json(path, {**_read_json(path), name: str(to)})
    except OSError as error:  # the download itself can go on
        _log.warning("%s cannot be written (%s): load %s by its folder.", path, error, to)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty if there is none, or if a crash or an editor left something else there."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value, indent=1), "utf-8")
    part.replace(path)
