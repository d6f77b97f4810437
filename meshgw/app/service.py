"""``twistd meshgw``: options, and the service tree of a data-plane process.

Source: linkerd-config spec 1.1; ARCHITECTURE.md section 7. The reactor is fetched here and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random, SystemRandom
from typing import Any, ClassVar

from twisted.python import usage
from twisted.python.logfile import LogFile

from meshgw.admin.authentication import UnusableToken, check_tokens
from meshgw.app.host import MeshService, take_signals
from meshgw.app.job import LOGGERS, QUIET, Settings
from meshgw.config.loader import LoadResult, load_file
from meshgw.core.logger import make_logger
from meshgw.errors import MeshError
from meshgw.kinds import Registry
from meshgw.telemetry.logs import LogLevels, log_observer, take_standard_logs

_log = make_logger()


LEAST_INTERVAL, MOST_INTERVAL = 0.1, 86_400.0
"""Seconds of an interval of histograms: each end of one costs a walk through the tree."""


class Options(usage.Options):
    """Options of ``twistd meshgw``."""

    synopsis = "[options] [CONFIG]"
    longdesc = "A service mesh gateway. CONFIG is a Linkerd 1.x configuration file (YAML or JSON), or - for standard input."
    optParameters: ClassVar[list[list[str | None]]] = [
        ["config", "c", None, "Configuration file, or - for standard input."],
        ["log-level", None, "INFO", "Level of the root logger: ALL, TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL or OFF."],
        ["log-format", None, "text", "Form of log lines: text or json."],
        ["histogram-interval", None, "60", "Seconds after which histograms are shown, and begin anew."],
    ]

    def parseArgs(self, *files: str) -> None:
        """The configuration may also be the only argument, as Linkerd has it."""
        if len(files) > 1 or (files and self["config"]):
            raise usage.UsageError("usage: twistd meshgw --config FILE: exactly one configuration file is expected")
        if files:
            self["config"] = files[0]

    def postOptions(self) -> None:
        """Load and check the configuration, so that a bad one ends the command with all its problems."""
        if self["config"] is None:
            raise usage.UsageError("usage: twistd meshgw --config FILE: exactly one configuration file is expected")
        if self["log-format"] not in ("text", "json"):
            raise usage.UsageError(f"--log-format {self['log-format']}: expected text or json")
        self["histogram-interval"] = _interval(self["histogram-interval"])
        result = load_file(self["config"], Registry())
        self["loaded"] = result
        if result.config is None:
            raise usage.UsageError("\n".join(["the configuration cannot be used", *(problem.show() for problem in result.problems)]))
        if result.config.admin.authentication is not None:
            try:
                check_tokens(result.config.admin.authentication)
            except UnusableToken as error:
                raise usage.UsageError(f"the configuration cannot be used\n{error}") from error
        _install_reactor()


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST_INTERVAL <= seconds <= MOST_INTERVAL:
        raise usage.UsageError(f"--histogram-interval {text}: expected {LEAST_INTERVAL:g} to {MOST_INTERVAL:g} seconds")
    return seconds


def _install_reactor() -> None:
    """Use our reactor unless ``twistd --reactor`` or somebody else chose one already."""
    if "twisted.internet.reactor" not in sys.modules:
        try:
            from meshgw.core.reactor import install
        except ImportError:
            return  # no epoll on this system: the default reactor serves, slower
        install()


def makeService(options: Options) -> MeshService:
    """Called by twistd. The reactor is fetched here and in ``app.worker``, and nowhere else."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    result: LoadResult = options["loaded"]
    assert result.config is not None
    levels = LogLevels(options["log-level"], known=LOGGERS)
    levels.preset(*QUIET)
    stream = _log_stream(options.parent or {})
    settings = Settings(
        reactor=reactor,
        # seeded by the system, but not asking it for every draw: a system call each would show on the request path
        random=Random(SystemRandom().getrandbits(256)),
        log_level=options["log-level"],
        log_format=options["log-format"],
        histogram_interval=options["histogram-interval"],
        relay=_relay(stream),
    )
    try:
        service = MeshService(result, settings, levels)
    except MeshError as error:  # what only shows here, such as an environment that lacks a variable
        raise SystemExit(f"meshgw cannot start: {error}") from error
    if stream is not None:  # else levels and form are the business of an observer that twistd was told of
        levels.govern()
        take_standard_logs(levels)
        service.observer = log_observer(stream, levels, as_json=options["log-format"] == "json")
    for problem in result.problems:
        _log.warn("{problem}", problem=problem.show())
    reactor.callWhenRunning(take_signals, reactor, service)
    return service


def _relay(stream: Any) -> Callable[[str], None]:
    """Writes the log lines of workers to where our own go."""

    def to_stream(text: str) -> None:
        with suppress(OSError, ValueError):  # a full disk, or a character that the stream cannot show, must not end supervision
            stream.write(text)
            stream.flush()

    def to_log(text: str) -> None:
        for line in text.splitlines():
            _log.info("{line}", line=line)

    return to_log if stream is None else to_stream


def _log_stream(twistd: Mapping[str, Any]) -> Any:
    """Where twistd's own options send the log; None when they choose an observer of their own (``--syslog``, ``--logger``)."""
    if twistd.get("syslog") or twistd.get("logger"):
        return None
    file = twistd.get("logfile")
    if file == "-" or (file is None and twistd.get("nodaemon", True)):
        return sys.stdout
    return LogFile.fromFullPath(file or "twistd.log")  # type: ignore[no-untyped-call]
