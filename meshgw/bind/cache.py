"""Caches of shared, closable things keyed by names: capacity, idle time, counters.

Source: linkerd-config spec 4.9, dtab spec 5.6. An entry lives while somebody holds it and for the idle time after the last holder left,
so that a name that flaps keeps its connections. When the cache is full the longest idle entry makes room; without one the new value is a
*oneshot*, built for its holder alone and closed when released.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class CacheCounters:
    """What happened to a cache, as the metrics ``rt/<label>/bindcache/<cache>/...`` tell it."""

    __slots__ = ("evicts", "expires", "misses", "oneshots")

    def __init__(self, counter: Callable[[str], Incrementable]) -> None:
        self.misses, self.evicts = counter("misses"), counter("evicts")
        self.expires, self.oneshots = counter("expires"), counter("oneshots")


class Incrementable(Protocol):
    """A counter."""

    def incr(self, by: int = 1) -> None:
        """Count."""
        ...


class Entry(Generic[K, V]):
    """A held value; give it back with :meth:`SharedCache.release`."""

    __slots__ = ("holders", "idle_since", "is_cached", "key", "value")

    def __init__(self, key: K, value: V, *, is_cached: bool) -> None:
        self.key, self.value, self.is_cached = key, value, is_cached
        self.holders = 1
        self.idle_since = 0.0


class SharedCache(Generic[K, V]):
    """Values built on demand by ``build(key)`` and ended by ``close(value)``. ``clock`` gives seconds."""

    def __init__(
        self,
        *,
        capacity: int,
        idle_seconds: float,
        clock: Callable[[], float],
        build: Callable[[K], V],
        close: Callable[[V], None],
        counters: CacheCounters,
    ) -> None:
        self._capacity, self._idle_seconds, self._clock = capacity, idle_seconds, clock
        self._build, self._close, self._counters = build, close, counters
        self._entries: dict[K, Entry[K, V]] = {}
        self._oneshots = 0

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> list[V]:
        """The cached values."""
        return [entry.value for entry in self._entries.values()]

    @property
    def idle(self) -> int:
        """Cached values that nobody holds."""
        return sum(not entry.holders for entry in self._entries.values())

    def acquire(self, key: K) -> Entry[K, V]:
        """Hold the value of ``key``."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.holders += 1
            return entry
        self._counters.misses.incr()
        has_room = len(self._entries) < self._capacity or self._evict()
        entry = Entry(key, self._build(key), is_cached=has_room)
        if has_room:
            self._entries[key] = entry
        else:
            self._counters.oneshots.incr()
        return entry

    def release(self, entry: Entry[K, V]) -> None:
        """Hold the value no longer."""
        entry.holders -= 1
        if not entry.holders:
            if entry.is_cached:
                entry.idle_since = self._clock()
            else:
                self._close(entry.value)

    def _evict(self) -> bool:
        idle = [entry for entry in self._entries.values() if not entry.holders]
        if not idle:
            return False
        self._drop(min(idle, key=lambda entry: entry.idle_since))
        self._counters.evicts.incr()
        return True

    def sweep(self) -> None:
        """Close what has been idle for the idle time."""
        limit = self._clock() - self._idle_seconds
        for entry in list(self._entries.values()):
            if not entry.holders and entry.idle_since <= limit:
                self._drop(entry)
                self._counters.expires.incr()

    def _drop(self, entry: Entry[K, V]) -> None:
        del self._entries[entry.key]
        self._close(entry.value)

    def close(self) -> None:
        """Close every value, held or not."""
        for entry in list(self._entries.values()):
            self._drop(entry)
