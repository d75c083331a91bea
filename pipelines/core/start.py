"""Begin and end commands quickly: what they import stays to their end and is no garbage, and they import no more."""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.abc
import logging
import re
import sys
from collections.abc import Sequence

_COMMAND = re.compile(r"pipelines(\.\w+)?|pipelines\.core\.worker")  # modules that are run, and call `imported`
_OPTIONAL = ("pandas", "bson")  # what is imported where it is installed, and no pipeline uses
_waits = False  # whether `importing` has left the collector off


def command_of(arguments: Sequence[str]) -> str:
    """Tell of all arguments of a Python process which module of ours it runs: `python -m pipelines.clean`; or ''."""
    named = arguments[arguments.index("-m") + 1 :][:1] if "-m" in arguments else ()
    return next((name for name in named if _COMMAND.fullmatch(name)), "")


def importing(module: str) -> None:
    """Leave the garbage collector off until `imported`: it would look through what is imported again and again.

    Nor are libraries imported that Beam and pyarrow look for and no pipeline uses, where `module` is one. For processes
    that are ours: the collector of a program that imports us, and what its libraries can do, is its own business.
    """
    global _waits
    if gc.isenabled():
        _waits = True
        gc.disable()
    if module.startswith("pipelines.") and _spared not in sys.meta_path:
        sys.meta_path.insert(0, _spared)


def imported() -> None:
    """Let it run again, over what comes now, where `importing` had left it off.

    When the process ends, nothing is looked through either, and so taken apart piece by piece: the system has it back
    at once. (Both together are 0.9 of 2.3 seconds that `clean` took to begin and to end.)

    Nor does numba look for a BLAS, see below.
    """
    global _waits
    if _spared in sys.meta_path:
        sys.meta_path.remove(_spared)
    if _waits:
        _waits = False
        _without_blas()
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)


class _Spared(importlib.abc.MetaPathFinder):
    """Let Beam and pyarrow find no pandas and no bson: half a second, for types that no pipeline of ours has."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Raise ModuleNotFoundError for those; find nothing."""
        if name in _OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


_spared = _Spared()
# It says that there is no bson, which nobody asked for.
logging.getLogger("apache_beam.io.mongodbio").addFilter(lambda record: "bson" not in str(record.msg))


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
