"""The process log: text or JSON lines, with a level per logger that can be changed while running.

Source: linkerd-config spec 2.4 (``/logging.json``) and 1.1 (``-log.level``). A logger is a namespace of ``twisted.logger``; what
:class:`LogLevels` turns away is never formatted. A level set for ``meshgw.bind`` holds for ``meshgw.bind.cache`` too. Whatever a plug-in
logs with, txaio, ``twisted.logger`` or the standard library's ``logging``, is held to these levels and written the same way.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    PredicateResult,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from meshgw.core.logger import set_least_level

ROOT = "root"
MOST_LOGGERS = 1000  # names seen so far; a plug-in that invents names must not grow the table without end

LEVELS = {"ALL": 0, "TRACE": 5, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50, "OFF": 100}
"""Linkerd's names and their rank; Twisted has nothing above critical, so that FATAL lets through the same."""

LEAST = ((0, "trace"), (10, "debug"), (20, "info"), (30, "warn"), (40, "error"), (50, "critical"), (100, "none"))
"""The level of txaio for the lowest rank that any logger lets through, from that rank on."""

_RANKS = {LogLevel.debug: 10, LogLevel.info: 20, LogLevel.warn: 30, LogLevel.error: 40, LogLevel.critical: 50}
_NAMES = {LogLevel.debug: "DEBUG", LogLevel.info: "INFO", LogLevel.warn: "WARNING", LogLevel.error: "ERROR", LogLevel.critical: "CRITICAL"}

_STANDARD = ((50, LogLevel.critical), (40, LogLevel.error), (30, LogLevel.warn), (20, LogLevel.info))
_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})

_OF_LEGACY: Final = frozenset(("time", "message"))
_DATAGRAMS: Final = re.compile(r"\(UDP Port \d+ Closed\)|\w*Datagram\w* starting on \d+")
"""What Twisted tells of every socket for a DNS question, at the level of information; it is of use for debugging only."""


def level_named(text: str) -> str:
    """The level in its canonical spelling. Raises ValueError ``Illegal log level: X`` (spec 1.2)."""
    if text.upper() not in LEVELS:
        raise ValueError(f"Illegal log level: {text}; known: {', '.join(LEVELS)}")
    return text.upper()


@implementer(ILogFilterPredicate)
class LogLevels:
    """The level of each logger; as a predicate it says whether an event is to be logged.

    ``known`` are loggers to list before they have said anything; others are added as they are first heard of.
    """

    def __init__(self, root: str = "INFO", known: Iterable[str] = ()) -> None:
        self._set = {ROOT: level_named(root)}
        self._known: dict[str, None] = dict.fromkeys(known)  # an ordered set
        self._ranks: dict[str, int] = {}
        self._governs = False

    def govern(self) -> None:
        """From now on let methods of txaio's loggers, in the whole process, do nothing while no level lets them through."""
        self._governs = True
        self._tell()

    def _tell(self) -> None:
        if self._governs:
            lowest = min(LEVELS[level] for level in self._set.values())
            set_least_level(max(entry for entry in LEAST if entry[0] <= lowest)[1])

    def loggers(self) -> list[tuple[str, str]]:
        """All known loggers with their level, inherited if none was set, by name."""
        return sorted((name, self.level(name)) for name in (ROOT, *self._known))

    def level(self, name: str) -> str:
        """The level in effect for a logger."""
        while name:
            if name in self._set:
                return self._set[name]
            name = name.rpartition(".")[0]
        return self._set[ROOT]

    def set(self, name: str, level: str) -> bool:
        """Set the level of a known logger; False, and no change, if the logger or the level is unknown."""
        if level.upper() not in LEVELS or (name != ROOT and name not in self._known):
            return False
        self._set[name] = level.upper()
        self._ranks.clear()
        self._tell()
        return True

    def preset(self, name: str, level: str) -> None:
        """Set the level of a logger that may not have been heard of yet."""
        if name != ROOT:
            self._known.setdefault(name)
        self.set(name, level)

    def chosen(self) -> dict[str, str]:
        """The levels that were set, by logger; those of all others are inherited from them."""
        return dict(self._set)

    def lets(self, name: str, rank: int) -> bool:
        """Whether an event of this rank is to be logged by the logger ``name``."""
        least = self._ranks.get(name)
        return rank >= (self._learned(name) if least is None else least)

    def __call__(self, event: LogEvent) -> Any:  # a constant of PredicateResult; their class has no annotations
        namespace = str(event.get("log_namespace") or ROOT)
        return PredicateResult.maybe if self.lets(namespace, _rank(event, namespace)) else PredicateResult.no

    def _learned(self, namespace: str) -> int:
        name = namespace
        while name and name != ROOT and name not in self._known and len(self._known) < MOST_LOGGERS:
            self._known[name] = None
            name = name.rpartition(".")[0]
        rank = LEVELS[self.level(namespace)]
        if len(self._ranks) < MOST_LOGGERS:
            self._ranks[namespace] = rank
        return rank


def _rank(event: LogEvent, namespace: str) -> int:
    if "txaio_trace" in event:
        return 5
    if namespace == "log_legacy" and _DATAGRAMS.match(" ".join(map(str, event.get("message", ())))):
        return 10
    return _RANKS.get(event.get("log_level", LogLevel.info), 20)


def log_observer(stream: TextIO, levels: LogLevels, *, as_json: bool = False) -> ILogObserver:
    """An observer that writes what ``levels`` lets through to ``stream``, one event a line (a traceback follows indented)."""
    line: Callable[[LogEvent], str] = json_line if as_json else text_line

    @implementer(ILogObserver)
    class Lines:
        def __call__(self, event: LogEvent) -> None:
            stream.write(line(event) + "\n")
            stream.flush()

    return FilteringLogObserver(Lines(), [levels])


def start_logging(stream: TextIO, levels: LogLevels, *, as_json: bool = False) -> None:
    """Send the log of the process to ``stream``; for a process whose logging nobody else has begun."""
    globalLogBeginner.beginLoggingTo([log_observer(stream, levels, as_json=as_json)], redirectStandardIO=False)


class StandardLogs(logging.Handler):
    """Passes on what is logged through the standard library: by plug-ins, and by libraries such as kazoo. For any thread."""

    def __init__(self, levels: LogLevels) -> None:
        super().__init__()
        self._levels = levels
        self._loggers: dict[str, Logger] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Make an event of a record, with what it was given in ``extra`` as fields; nothing is formatted for a level that is off."""
        if record.name.startswith("twisted") or not self._levels.lets(record.name, record.levelno):
            return  # Twisted's own bridge would bring an event back that came from here
        try:
            self._emit(record, record.getMessage())
        except Exception:  # noqa: BLE001 - the rim: whoever logs must not fail because of it
            self.handleError(record)

    def _emit(self, record: logging.LogRecord, message: str) -> None:
        logger = self._loggers.get(record.name)
        if logger is None:
            logger = Logger(record.name)
            if len(self._loggers) < MOST_LOGGERS:
                self._loggers[record.name] = logger
        given = {name: value for name, value in vars(record).items() if name not in _RECORD and not name.startswith("log_")}
        fields = {f"{name}_" if name in ("format", "level") else name: value for name, value in given.items()}
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, traceback = record.exc_info
            fields["log_failure"] = Failure(error, kind, traceback)  # type: ignore[no-untyped-call]  # no annotations there
        level = next((level for rank, level in _STANDARD if record.levelno >= rank), LogLevel.debug)
        logger.emit(level, message.replace("{", "{{").replace("}", "}}"), **fields)


def take_standard_logs(levels: LogLevels) -> None:
    """Take over what is logged through the standard library in this process, whose other handlers are to be replaced."""
    logging.basicConfig(handlers=[StandardLogs(levels)], level=1, force=True)  # 1: which levels are off is decided by ``levels``


def text_line(event: LogEvent) -> str:
    """``2024-01-31T12:00:00.000Z WARNING meshgw.bind: message``; further lines of a message are indented, so none can be forged."""
    logger = event.get("log_namespace") or ROOT
    return f"{_time(event)} {_level(event)} {logger}: {_printable(_message(event, traceback=True))}"


def json_line(event: LogEvent) -> str:
    """A JSON object with time, level, logger, message, the event's own fields and the traceback, if any.

    A field of the event that has the name of one of these gets an underscore behind it. Numbers that JSON does not have are texts.
    """
    entry: dict[str, Any] = {"time": _time(event), "level": _level(event), "logger": event.get("log_namespace") or ROOT}
    entry["message"] = _message(event, traceback=False)
    if "log_failure" in event:
        entry["traceback"] = event["log_failure"].getTraceback()
    known = _OF_LEGACY if event.get("log_namespace") == "log_legacy" else ()  # Twisted's old events say the same once more
    for name, value in event.items():
        if not name.startswith(("log_", "txaio_")) and name not in known:
            while name in entry or name == "traceback":
                name += "_"
            entry[name] = _plain(value)
    return json.dumps(entry, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, type(None))) else str(value)


def _message(event: LogEvent, *, traceback: bool) -> str:
    return eventAsText(event, includeTraceback=traceback, includeTimestamp=False, includeSystem=False)


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(float(event.get("log_time", 0.0)), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _level(event: LogEvent) -> str:
    if "txaio_trace" in event:
        return "TRACE"
    return _NAMES.get(event.get("log_level", LogLevel.info), "INFO")


def _printable(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    clean = ["".join([letter if letter.isprintable() or letter == "\t" else f"\\x{ord(letter):02x}" for letter in line]) for line in lines]
    return "\n    ".join(clean)
