"""Start the `journal` command from a checkout: `python cli.py --help`."""

from journal.commands import main

if __name__ == "__main__":
    main()
