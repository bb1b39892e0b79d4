"""The `bagel` command, and `python -m bagel`."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported ends it as later."""
    try:
        from bagel.app.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("bagel: stopped.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
