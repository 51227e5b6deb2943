"""`python -m sitq.cli`: the same as `sitq`."""

from sitq.cli import main

if __name__ == "__main__":
    main()
