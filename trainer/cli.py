"""What the trainer's commands share: an error that a user can act on is one line, not a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def guarded(main: Callable[P, int]) -> Callable[P, int]:
    """Turn a command's expected errors (ValueError and its kin, FloatingPointError, OSError) into a line and code 1."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (ValueError, FloatingPointError, OSError) as error:
            if int(os.environ.get("RANK", 0)) == 0:  # every process fails the same way; one says so
                print(f"error: {error}", file=sys.stderr)
            return 1

    return run
