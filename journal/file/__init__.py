"""One journal file: its schema, opening it, appending to it and reading from it.

`FORMAT.md` specifies the file. Nothing here knows of projections.
"""
