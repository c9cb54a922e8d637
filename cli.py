"""Start the `journal` command from a checkout: `python cli.py --help`."""

from journal.__main__ import main

if __name__ == "__main__":
    main()
