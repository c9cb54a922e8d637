"""What is loaded once for all processes that the tests fork, instead of by each of them."""

import contextlib
import gc
import importlib
import os

import support

# `support` has put the folder of the tests in front.
before = os.environ.pop("PYTHONPATH").partition(os.pathsep)[2]
if before:
    os.environ["PYTHONPATH"] = before

for name in ("commands_support", "disks", "prune_support", "recover_support", "verify_support"):
    importlib.import_module(name)
with contextlib.suppress(OSError):  # as where the working directory is gone
    support.use_everything()
gc.collect()
gc.freeze()
