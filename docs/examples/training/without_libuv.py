"""Run a program with a PyTorch that was built without libuv, such as Debian's.

    python3 without_libuv.py -m torch.distributed.run … without_libuv.py train.py …

USE_LIBUV=0 says that there is none, and init_process_group minds it where srun has started the
ranks. torchrun's own stores, and those of ranks below it, ask for libuv all the same (PyTorch 2.6).
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import torch.distributed as distributed


class TCPStore(distributed.TCPStore):  # type: ignore[misc]
    """One that does not ask for libuv."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **{**named, "use_libuv": False})


# Whatever is imported from now on takes the name from the package; one module has it already, and a
# function of the same name hides that in the package.
for name in ("torch.distributed", "torch.distributed.rendezvous"):
    vars(sys.modules[name])["TCPStore"] = TCPStore

if __name__ == "__main__":
    del sys.argv[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
