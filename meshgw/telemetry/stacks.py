"""What the threads of this process are doing: their stacks at one moment, and samples of them over some seconds.

Source: linkerd-config spec 2.3 (``/admin/threads``, ``/admin/contention``, ``/admin/pprof/profile``). Sampling is done by a thread of its
own which looks at the others ``hz`` times a second; each look takes some 20 µs in which the others wait. Nothing is traced or patched, so
that nobody pays who does not ask. The interpreter lets the sampling thread run between instructions of Python: time inside of a long call
into C is told as that of the line that made the call.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

DEEPEST: Final = 64
"""Frames of a stack that are told, the innermost."""
MOST_STACKS: Final = 20_000
"""Different stacks of one profile; further ones are counted together."""
OTHERS: Final = "(others)"
LONGEST_SECONDS: Final = 60.0
FASTEST_HZ: Final = 250
_WAITING: Final = frozenset({"wait", "acquire", "join", "get", "select", "poll", "epoll", "doPoll", "doIteration", "_wait_for_tstate_lock"})
"""Functions of threading, queues and event loops in which a thread waits rather than works."""


def threads() -> dict[str, dict[str, Any]]:
    """By its number, each thread's name, whether it is a daemon, whether it waits, and its stack, the innermost frame first."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    found: dict[str, dict[str, Any]] = {}
    for ident, frame in sys._current_frames().items():
        thread = known.get(ident)
        is_asker = ident == threading.get_ident()
        found[str(ident)] = {
            "thread": "(unknown)" if thread is None else thread.name,
            "daemon": thread is not None and thread.daemon,
            "state": "answers this" if is_asker else "waiting" if frame.f_code.co_name in _WAITING else "running",
            "stack": [show(one) for one in _frames(frame)],
        }
    return found


def show(frame: FrameType) -> str:
    """``function (file:line)``."""
    return f"{frame.f_code.co_qualname} ({_short(frame.f_code.co_filename)}:{frame.f_lineno})"


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(DEEPEST):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _short(file: str) -> str:
    """The file's name below the directory that modules are imported from."""
    for mark in ("/site-packages/", "/lib/python3"):
        before, found, rest = file.rpartition(mark)
        if found and before:
            return rest.partition("/")[2] if mark == "/lib/python3" else rest
    at = file.rfind("/meshgw/")
    return file[at + 1 :] if at >= 0 else file


def sample(seconds: float, hz: int, stopped: threading.Event) -> dict[str, int]:
    """How often each stack was seen, as ``thread;outermost;…;innermost``, in ``seconds`` or until ``stopped``; for a thread of its own."""
    seen: Counter[str] = Counter()
    own = threading.get_ident()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopped.wait(1 / hz):
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident == own:
                continue
            stack = ";".join((_plain(names.get(ident, "(unknown)")), *reversed([_plain(show(one)) for one in _frames(frame)])))
            seen[stack if stack in seen or len(seen) < MOST_STACKS else OTHERS] += 1
    return dict(seen)


def _plain(name: str) -> str:
    return name.replace(";", ",").replace("\n", " ")


def collapsed(samples: Mapping[str, int]) -> str:
    """Samples in the form that flame graph tools read: a stack and its count on each line, the most frequent first."""
    return "".join(f"{stack} {count}\n" for stack, count in sorted(samples.items(), key=lambda item: (-item[1], item[0])))
