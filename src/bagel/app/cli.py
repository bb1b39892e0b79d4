"""The command line: its commands are in the modules `*_cli`, each short; what it says when one fails is here.

Results go to stdout, everything else to stderr. Exit codes: 0; 1 with one line for what a user can put right; 2 for
a wrong call; 130 for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from bagel.app import bench_cli, eval_cli, make_cli, memory_cli, model_cli, open_cli, run_cli, train_cli
from bagel.app.wake import import_torch
from bagel.app.words import CallError
from bagel.errors import BagelError
from bagel.version import __version__

app = App(
    name="bagel",
    help="BAGEL: one model that draws, edits, answers and thinks.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

for commands in (make_cli, run_cli, open_cli, model_cli, memory_cli, train_cli, eval_cli, bench_cli):
    commands.register(app)


SMALLER = "draw smaller or fewer pictures, shorten the input, or keep the weights in fewer bits (--precision)"
SMALLER_TRAINING = (
    "lower data.expected_num_tokens and data.max_num_tokens, set parallel.recompute=full, parallel.params=bf16 or "
    "optim.name=adamw8bit, or train adapters (lora)"
)
"""What to do where memory does not suffice."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `bagel` command. arguments: instead of the process's own."""
    warnings.filterwarnings("ignore", module="PIL")  # our own limits and errors say it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know the answer's letters
    command = None
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        if command.__module__.startswith("bagel.app") and command is not model_cli.download:  # not help or version
            import_torch()
        command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except (CycloptsError, CallError) as error:
        _fail(f"{error} See `bagel --help`.", 2)
    except BagelError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    except BrokenPipeError:
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        _drop_stdout()
        _fail(f"writing failed: {error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        remedy = SMALLER_TRAINING if command is train_cli.train else SMALLER
        _fail(f"the job does not fit into memory ({' '.join(str(error).split())[:200]}); {remedy}.", 1)


def _drop_stdout() -> None:
    """Nobody reads it any more: what is still buffered must not fail once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bagel: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
