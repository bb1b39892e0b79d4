"""Everything worth keeping, in at most eight files of at most 16 MiB, 64 MiB in all: pieces of one archive, scores,
logs, pictures."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from bagel.checkpoint import WEIGHTS
from bagel.errors import InputError
from bagel.eval.record import FAILURES, SUMMARY, VERDICTS
from bagel.mini import pieces
from bagel.mini.folder import package
from bagel.mini.make.state import EVAL, FILE, PACKED, PROBES, TRAIN, TRUNK, State
from bagel.mini.make.status import scores, status
from bagel.mini.study.results import read, write
from bagel.train import state as checkpoints
from bagel.train.config import RESOLVED
from bagel.train.export_run import export_run
from bagel.train.log import LINES

ARCHIVE, LOGS, SCORES = "model.tar", "logs.tar.gz", "scores.json"
LIMIT = 60 << 20


def collect(work: Path, out: Path) -> list[str]:
    """Writes what there is, at any time; -> the names. The archive holds `packed` whole (of the newest checkpoint,
    while training goes on, then named by its step) and verdicts; looks and the weights of `trunk` if they fit.
    Raises InputError where `make` has not begun."""
    if not (work / FILE).exists():
        raise InputError(f"{work} holds no {FILE}; give the folder in which `make` works.")
    out.mkdir(parents=True, exist_ok=True)
    needed = [_packed(work), work / EVAL / VERDICTS]
    trunk, looks = work / TRUNK / WEIGHTS, work / PROBES
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / ARCHIVE
        for paths in ([*needed, trunk, looks], [*needed, trunk], needed):
            pack(archive, work, paths)
            if archive.stat().st_size <= LIMIT:
                break
        pieces.split(archive, out)
        logs = [work / "logs", work / FILE, work / TRAIN / LINES, work / TRAIN / RESOLVED, work / "autoencoder-run"]
        pack(out / LOGS, work, logs, leave_out=".safetensors")
    state = State(work)
    summary = read(work / EVAL / SUMMARY)
    text = {"status": status(work).splitlines(), "scores": scores(work), "stages": state.stages, "summary": summary}
    write(out / SCORES, text)
    if (work / EVAL / FAILURES).exists():
        shutil.copyfile(work / EVAL / FAILURES, out / FAILURES)
    return sorted(path.name for path in out.iterdir())


def _packed(work: Path) -> Path:
    """What is to be embedded; before the end, what would be now."""
    newest = checkpoints.newest(work / TRAIN)
    if (work / PACKED).exists() or newest is None:
        return work / PACKED
    out = work / f"packed-{newest.name}"
    with tempfile.TemporaryDirectory() as folder:
        package(export_run(work / TRAIN, Path(folder)).folder, out)
    return out


def pack(archive: Path, base: Path, paths: list[Path], leave_out: str | None = None) -> None:
    """Those of the paths that exist, named from `base` on, in one tar; compressed where its name says so."""
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
        for path in paths:
            files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
            for file in files:
                if leave_out is None or not file.name.endswith(leave_out):
                    tar.add(file, file.relative_to(base).as_posix())


def unpack(source: Path, out: Path) -> None:
    """An archive that `collect` or `pack_pieces` cut, joined and unpacked below `out`."""
    with tempfile.TemporaryDirectory() as folder:
        pieces.join(source, Path(folder))
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as tar:
            tar.extractall(out, filter="data")


def pack_pieces(out: Path, paths: list[Path]) -> None:
    """Folders and files, named as given, as pieces of one compressed archive: those that exist. Raises InputError
    where none does."""
    if not any(path.exists() for path in paths):
        raise InputError(f"there is no {' and no '.join(map(str, paths))}.")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "files.tar.gz"
        pack(archive, Path(), paths)
        pieces.split(archive, out)
