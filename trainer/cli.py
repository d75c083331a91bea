"""What the trainer's commands share: an error that a user can act on is one line, not a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def where() -> str:
    """' (process 2)' in a run of several; which one fails can matter, for each reads its own rows."""
    return f" (process {os.environ['RANK']})" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""


def guarded(main: Callable[P, int]) -> Callable[P, int]:
    """Turn a command's expected errors (ValueError and its kin, FloatingPointError, OSError) into a line and code 1."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (ValueError, FloatingPointError, OSError) as error:
            print(f"error{where()}: {error}", file=sys.stderr)
            return 1

    return run
