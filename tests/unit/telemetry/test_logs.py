from __future__ import annotations

import io
import json

import pytest
from twisted.logger import Logger, LogPublisher
from twisted.python import log

from meshgw.telemetry.logs import LogLevels, level_named, log_observer


class Watched:
    """Tells whether it was formatted."""

    formatted = False

    def __format__(self, spec: str) -> str:
        self.formatted = True
        return "text"


def logging_to(levels: LogLevels, *, as_json: bool = False) -> tuple[LogPublisher, io.StringIO]:
    stream = io.StringIO()
    return LogPublisher(log_observer(stream, levels, as_json=as_json)), stream


def test_text_line_has_time_level_and_logger() -> None:
    publisher, stream = logging_to(LogLevels())
    Logger("meshgw.bind", observer=publisher).warn("no {thing}", thing="answer")
    time, _, rest = stream.getvalue().partition(" ")
    assert time.endswith("Z") and rest == "WARNING meshgw.bind: no answer\n"


def test_message_cannot_forge_a_line() -> None:
    publisher, stream = logging_to(LogLevels())
    Logger("meshgw", observer=publisher).info("{text}", text="a\nb\x1b[0m")
    assert stream.getvalue().endswith("meshgw: a\n    b\\x1b[0m\n")


def test_json_line_has_the_fields_of_the_event() -> None:
    publisher, stream = logging_to(LogLevels(), as_json=True)
    log = Logger("meshgw.bind", observer=publisher)
    try:
        raise ValueError("x")
    except ValueError:
        log.failure("bad {name}", name="/svc", what=object)
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["logger"], entry["message"], entry["name"]) == ("CRITICAL", "meshgw.bind", "bad /svc", "/svc")
    assert "ValueError: x" in entry["traceback"]


def test_level_that_is_off_formats_nothing() -> None:
    levels, watched = LogLevels(), Watched()
    publisher, stream = logging_to(levels)
    log = Logger("meshgw.bind", observer=publisher)
    log.debug("{it}", it=watched)
    assert not watched.formatted and stream.getvalue() == ""
    assert levels.set("meshgw.bind", "debug")
    log.debug("{it}", it=watched)
    assert watched.formatted


def test_level_is_inherited_by_name() -> None:
    levels = LogLevels("WARNING", known=["meshgw", "meshgw.bind", "meshgw.binder"])
    levels.set("meshgw.bind", "TRACE")
    assert levels.level("meshgw.bind.cache") == "TRACE"
    assert levels.level("meshgw.binder") == "WARNING"
    assert levels.loggers() == [("meshgw", "WARNING"), ("meshgw.bind", "TRACE"), ("meshgw.binder", "WARNING"), ("root", "WARNING")]


def test_unknown_logger_or_level_changes_nothing() -> None:
    levels = LogLevels()
    assert not levels.set("nobody", "DEBUG") and not levels.set("root", "LOUD")
    assert levels.loggers() == [("root", "INFO")]


def test_loggers_are_known_once_heard_of() -> None:
    levels = LogLevels()
    publisher, _ = logging_to(levels)
    Logger("meshgw.bind.cache", observer=publisher).debug("x")
    assert [name for name, _ in levels.loggers()] == ["meshgw", "meshgw.bind", "meshgw.bind.cache", "root"]


def test_off_silences_even_critical() -> None:
    levels = LogLevels("OFF")
    publisher, stream = logging_to(levels)
    Logger("x", observer=publisher).critical("x")
    assert stream.getvalue() == ""
    levels.set("root", "FATAL")
    Logger("x", observer=publisher).critical("x")
    assert stream.getvalue() != ""


@pytest.mark.parametrize("text", ["_Datagram starting on 44018", "DNSDatagramProtocol starting on 1", "(UDP Port 44018 Closed)"])
def test_sockets_of_dns_questions_are_told_for_debugging_only(text: str) -> None:
    levels = LogLevels()
    publisher, stream = logging_to(levels)
    legacy = log.LogPublisher(observerPublisher=publisher, publishPublisher=publisher)
    legacy.msg(text)
    legacy.msg("Site starting on 9990")
    assert [line.rpartition(": ")[2] for line in stream.getvalue().splitlines()] == ["Site starting on 9990"]
    levels.set("log_legacy", "DEBUG")
    legacy.msg(text)
    assert stream.getvalue().endswith(f"log_legacy: {text}\n")


def test_illegal_level_is_named() -> None:
    with pytest.raises(ValueError, match="Illegal log level: LOUD"):
        level_named("LOUD")
