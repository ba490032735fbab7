"""`python -m infalign` is `infalign`."""

from infalign.cli import main

if __name__ == "__main__":
    main()
