"""What was made once, and is kept for those who ask again, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Values by key. The one that nobody has asked for the longest goes first when there is no room."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: bytes that all values may have."""
        self._capacity = capacity
        self._values: OrderedDict[Hashable, tuple[int, V]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> V | None:
        """The value of a key, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][1]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of so many bytes in place of what the key had; not one that leaves others no room."""
        old, _ = self._values.pop(key, (0, None))
        self._size -= old
        if size > self._capacity:
            return
        self._values[key] = size, value
        self._size += size
        while self._size > self._capacity:
            _, (old, _) = self._values.popitem(last=False)
            self._size -= old
