"""python -m bagel: the command line where no `bagel` script is on the path."""

from bagel.app.cli import main

if __name__ == "__main__":
    main()
