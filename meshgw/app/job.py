"""What is to be run, in which processes: a checked configuration, the job of a worker, and the rights to do it with.

Apart from the worker's own module, which is a program and imports what only a program needs.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs

from meshgw.app.sockets import router_label
from meshgw.config.models import Config
from meshgw.telemetry.histogram import DEFAULT_INTERVAL

_PACKAGES = ("admin", "app", "backends", "bind", "client", "core", "filters", "identify", "namers", "server", "telemetry")
LOGGERS = ("kazoo", "meshgw", *(f"meshgw.{package}" for package in _PACKAGES))
"""Loggers that an operator can choose a level for before they have said anything."""
QUIET = ("twisted.protocols.amp", "WARNING")
"""A logger that tells of every control connection, and its level."""


SHARED = "shared"


@attrs.frozen(kw_only=True)
class Accepted:
    """A configuration that was checked, with the text and file name to give to workers, and what was remarked on."""

    config: Config
    text: str
    file: str
    remarks: Sequence[str] = ()


def needs_master(config: Config) -> bool:
    """Whether ``config`` asks for more than one process."""
    return config.workers.count > 1 or any(chosen.config.processes == "own" for chosen in config.routers)


def groups(config: Config) -> dict[str, list[Any]]:
    """The routers that run in the same workers, by the name of their group."""
    found: dict[str, list[Any]] = {}
    for chosen in config.routers:
        found.setdefault(router_label(chosen) if chosen.config.processes == "own" else SHARED, []).append(chosen)
    return found


@attrs.frozen(kw_only=True)
class Settings:
    """What workers have in common with their master: how to log, on which reactor to run, and where their output goes.

    ``histogram_interval`` is in seconds.
    """

    reactor: Any
    random: Random
    log_level: str
    log_format: str
    histogram_interval: float = DEFAULT_INTERVAL
    relay: Callable[[str], None]


@attrs.frozen(kw_only=True)
class Job:
    """What a master gives a worker to do. ``sockets`` are inherited descriptors by name, ``shares`` descriptor, slots and own slot.

    ``levels`` are those of loggers at present, ``tracing`` whether requests are traced.
    """

    text: str
    file: str
    routers: Sequence[str]
    sockets: dict[str, int]
    shares: Sequence[int]
    is_first: bool
    user: str | None
    levels: dict[str, str]
    tracing: bool = True

    def to_plain(self) -> dict[str, Any]:
        """As JSON data."""
        return attrs.asdict(self)


def drop_privileges(user: str) -> None:
    """Become ``user`` for good, with its groups. Raises OSError or KeyError."""
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
