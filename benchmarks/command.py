"""The `journal` command as a process that is measured: `python -m benchmarks.command ARGUMENTS`.

When it ends, the last line on standard error is its peak memory in MB.
"""

import atexit
import sys

from benchmarks.memory import peak_mb
from journal.__main__ import main

if __name__ == "__main__":
    atexit.register(lambda: sys.stderr.write(f"{peak_mb()}\n"))
    main()
