"""Run the `journal` command as `python -m journal`."""

from journal.commands import main

if __name__ == "__main__":
    main()
