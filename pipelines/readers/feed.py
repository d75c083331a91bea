"""A window on the decompressed bytes of a damaged file, for readers that search for where their records begin."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from pipelines.readers.members import Damage, Event, Start

OVERLAP = 8192  # of a pattern's match, at most


class Feed:
    """The bytes from `position` on, in `data`, up to the next place where bytes are missing (`damage`).

    position: offset in the decompressed file; a place where bytes are missing counts as one byte, so that no two
    records, or places, have the same.
    """

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self.data = bytearray()
        self.position = 0
        self.damage: Damage | None = None
        self._ended = False
        self._starts: deque[int] = deque()

    def _more(self) -> bool:
        if self.damage is not None or self._ended:
            return False
        event = next(self._events, None)
        if event is None:
            self._ended = True
        elif type(event) is Start:
            self._starts.append(self.position + len(self.data))
        elif type(event) is Damage:
            self.damage = event
        else:
            assert isinstance(event, bytes)
            self.data += event
        return not self._ended and self.damage is None

    def fill(self, size: int) -> bool:
        """Read on until `data` has `size` bytes; False where the file, or what can be read of it, ends before."""
        while len(self.data) < size:
            if not self._more():
                return False
        return True

    def drop(self, size: int) -> None:
        """Move the window forward."""
        del self.data[:size]
        self.position += size
        while self._starts and self._starts[0] < self.position:
            self._starts.popleft()

    def pass_damage(self) -> None:
        """Move the window behind the place where bytes are missing."""
        self.drop(len(self.data))
        self._starts.clear()
        self.position += 1
        self.damage = None

    def starts(self, begin: int, end: int) -> Iterator[int]:
        """Yield where members begin in data[begin:end], as far as it is read; to be used before `fill` or `drop`."""
        for start in self._starts:
            at = start - self.position
            if at >= end:
                return
            if at >= begin:
                yield at

    def at_end(self, offset: int) -> bool:
        """Whether the file, not only what can be read of it, ends at data[offset]."""
        return not self.fill(offset + 1) and self.damage is None and len(self.data) == offset

    def seek(self, pattern: re.Pattern[bytes], begin: int) -> bool:
        """Move the window to the next match at or after data[begin]; False, and to the end, where there is none.

        Matches longer than OVERLAP may be missed. Memory: what is read already and one piece.
        """
        while True:
            found = pattern.search(self.data, begin)
            # One that reaches the end of what is read may match differently with more behind it.
            if found is not None and (found.end() < len(self.data) or not self._more()):
                found = pattern.search(self.data, begin)
                if found is not None:
                    self.drop(found.start())
                    return True
            if found is None:
                passed = max(0, len(self.data) - OVERLAP)
                self.drop(passed)
                begin = max(0, begin - passed)
                if not self._more():
                    self.drop(len(self.data))
                    return False
