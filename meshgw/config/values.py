"""Value types of the configuration file that are not plain scalars: ports, addresses, files, host and port, header names.

Source: linkerd-config spec 1.2 (value types) and 5.1 (roll policy). ``Port``, ``Ip``, ``Directory`` and ``File`` are plain values
whose checks are made when they are read (``config.scalars``); ``PathMatcher`` is that of ``naming.pattern``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, NewType

import attrs

from meshgw.config.document import option
from meshgw.naming.pattern import PathMatcher, substitute, substitute_path

__all__ = [
    "Captures",
    "Directory",
    "File",
    "HostAndPort",
    "Ip",
    "PathMatcher",
    "Port",
    "Workers",
    "header_name",
    "roll_policy",
    "substitute",
    "substitute_path",
]

Port = NewType("Port", int)
"""A TCP port, 0 to 65535; 0 lets the system choose."""

Ip = NewType("Ip", str)
"""A literal IPv4 or IPv6 address."""

Directory = NewType("Directory", str)
"""A local path that was a directory when the file was read."""

File = NewType("File", str)
"""A local path that was a regular file when the file was read."""

Captures = Mapping[str, str]
"""What the variables of a pattern stand for, by name."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_ROLL_POLICY: Final = re.compile(r"never|hourly|daily|weekly\([1-7]\)|0*[1-9][0-9]*\.(?:byte|kilobyte|megabyte|gigabyte|terabyte)s?")


MOST_WORKERS: Final = 256
"""A bound against slips of the keyboard; more processes than CPUs help nobody."""


@attrs.frozen
class Workers:
    """How many processes serve: a number, or ``auto`` for one per CPU that this process may use."""

    count: int
    is_auto: bool = False

    @classmethod
    def read(cls, text: str) -> Workers:
        """Read a number or ``auto``. Raises ValueError."""
        lowered = text.strip().lower()
        if lowered == "auto":
            return cls(min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST_WORKERS), True)
        if not re.fullmatch(r"[0-9]{1,9}", lowered) or not 1 <= int(lowered) <= MOST_WORKERS:
            raise ValueError(f"expected auto or a number from 1 to {MOST_WORKERS}, found {text!r}")
        return cls(int(lowered))

    def show(self) -> str:
        """As it is written in the file."""
        return "auto" if self.is_auto else str(self.count)


@attrs.frozen(kw_only=True)
class HostAndPort:
    """A host name or address and its port."""

    host: str = option(doc="Host name or address.")
    port: Port = option(doc="TCP port.")


def header_name(value: Any) -> str | None:
    """A check: the text can be the name of an HTTP header."""
    return None if _TOKEN.fullmatch(value) else f"{value!r} cannot be the name of a header"


def roll_policy(value: Any) -> str | None:
    """A check: the text is a roll policy as ``telemetry.rolling`` reads it."""
    if _ROLL_POLICY.fullmatch(value.strip().lower()):
        return None
    return f"unknown roll policy {value!r}; expected never, hourly, daily, weekly(1..7) or a size such as 3.megabytes"
