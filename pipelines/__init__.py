"""The pipelines of Gristmill, one module per stage."""

import hashlib
import logging
import os
import sys
from pathlib import Path

from pipelines.core.start import command_of, importing


def _is_for_us(record: logging.LogRecord) -> bool:
    return "apitools not found" not in str(record.msg)


def _kernels() -> Path:
    """A folder for compiled kernels that is another one whenever the source of any kernel changes.

    numba's own cache looks at the file of the kernel alone: one that calls a kernel of another file would stay as it
    was compiled with the old one.
    """
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(package.glob("*/*.py")):
        source = path.read_bytes()
        if b"numba" in source:
            digest.update(path.name.encode() + b"\0" + source)
    return package / "__pycache__" / f"kernels-{digest.hexdigest()[:16]}"


# Beam warns on every import that an optional Google library is missing; who did not ask for it cannot act on it.
logging.getLogger().addFilter(_is_for_us)
os.environ.setdefault("NUMBA_CACHE_DIR", str(_kernels()))  # where it cannot be written, numba falls back to its own
if _command := command_of(sys.orig_argv):  # until its module was imported, see `start`
    importing(_command)
