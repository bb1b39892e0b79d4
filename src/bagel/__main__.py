"""The `bagel` command, and `python -m bagel`."""

import sys

from bagel.waiting import wait_asleep


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported ends it as later."""
    wait_asleep()
    try:
        from bagel.app.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("bagel: stopped.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
