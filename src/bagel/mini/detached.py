"""A long command that goes on when the shell that began it has gone: begun, watched and ended by short ones.

FOLDER/detached.json   its process; FOLDER/output.txt   what it says; FOLDER/code   its exit status
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bagel.errors import InputError
from bagel.mini.make.state import started

ATTEND = """
trap 'kill -TERM $child' TERM
"$@" & child=$!
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code > "$0"
"""
"""Runs a command, hands SIGTERM on, and keeps its exit status in the file that is named first."""
FILE, OUTPUT, CODE = "detached.json", "output.txt", "code"


def begin(folder: Path, command: Sequence[str]) -> int:
    """Starts `python -m bagel.mini COMMAND` in a session of its own; -> its process number. Raises InputError while
    the one before runs."""
    if is_running(folder):
        raise InputError(f"{folder} has a command under way; watch it, or halt it first.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CODE).unlink(missing_ok=True)
    words = ["sh", "-c", ATTEND, str(folder / CODE), sys.executable, "-u", "-m", "bagel.mini", *command]
    with (folder / OUTPUT).open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    about = {"pid": process.pid, "started": started(process.pid), "command": list(command)}
    (folder / FILE).write_text(json.dumps(about), encoding="utf-8")
    return process.pid


def is_running(folder: Path) -> bool:
    if not (folder / FILE).exists():
        return False
    about = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return about["started"] != 0 and started(about["pid"]) == about["started"]


def watch(folder: Path, minutes: float, every: float = 60.0, more: Callable[[], str] | None = None) -> int | None:
    """Prints the end of the output (and `more`) now and then until the command has ended or the minutes are over;
    -> its exit status, None while it runs, or where it was killed."""
    end = time.monotonic() + 60 * minutes
    while True:
        running, left = is_running(folder), end - time.monotonic()
        print(more() if more else tail(folder / OUTPUT) or "no output yet", flush=True)
        if not running or left <= 0:
            break
        time.sleep(min(every, left))
    code = int(text) if (text := _text(folder / CODE).strip()) else None
    print("under way" if running else f"ended with {code}", flush=True)
    return code


def halt(folder: Path, grace: float = 60.0) -> None:
    """Asks the command to end; after `grace` seconds ends it and all that it started in its session."""
    about = json.loads(_text(folder / FILE) or "{}")
    for send, number in ((os.kill, signal.SIGTERM), (os.killpg, signal.SIGKILL)):
        if not is_running(folder):
            return
        send(about["pid"], number)
        end = time.monotonic() + grace
        while is_running(folder) and time.monotonic() < end:
            time.sleep(0.1)


def tail(path: Path, count: int = 2000) -> str:
    return _text(path)[-count:].rstrip()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
