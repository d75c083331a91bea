"""Begin and end commands quickly: what they import stays to their end, and is no garbage to look for."""

from __future__ import annotations

import atexit
import gc
import importlib
import re
import sys
from collections.abc import Sequence

_COMMAND = re.compile(r"pipelines(\.\w+)?|pipelines\.core\.worker")  # modules that are run, and call `imported`
_waits = False  # whether `importing` has left the collector off


def is_command(arguments: Sequence[str]) -> bool:
    """Tell of all arguments of a Python process whether it runs a module of ours: `python -m pipelines.clean`."""
    named = arguments[arguments.index("-m") + 1 :][:1] if "-m" in arguments else ()
    return any(_COMMAND.fullmatch(name) for name in named)


def importing() -> None:
    """Leave the garbage collector off until `imported`: it would look through what is imported again and again.

    For processes that are ours: the collector of a program that imports us is its own business.
    """
    global _waits
    _waits = _waits or gc.isenabled()
    gc.disable()


def imported() -> None:
    """Let it run again, over what comes now, where `importing` had left it off.

    When the process ends, nothing is looked through either, and so taken apart piece by piece: the system has it back
    at once. (Both together are 0.9 of 2.3 seconds that `clean` took to begin and to end.)

    Nor does numba look for a BLAS, see below.
    """
    global _waits
    if _waits:
        _waits = False
        _without_blas()
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)


def _without_blas() -> None:
    """Let numba find no BLAS: it would import scipy.linalg to look for one when the first kernel comes from its cache.

    No kernel of ours multiplies matrices, and that takes a fifth of a second. Others may import SciPy as ever.
    """
    if "numba" in sys.modules and "scipy.linalg" not in sys.modules:
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("numba.np.arraymath")  # who looks, once
        finally:
            del sys.modules["scipy.linalg"]
