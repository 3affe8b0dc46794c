"""`python -m imageworks`: the same entry point as the console script."""

from imageworks.cli import main

if __name__ == "__main__":
    main()
