from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import Logger, LogPublisher
from twisted.python import log
from txaio import tx

from meshgw.telemetry.logs import LogLevels, StandardLogs, json_line, level_named, log_observer


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


def test_fields_of_an_event_with_the_names_of_the_lines_own_get_an_underscore() -> None:
    entry = json.loads(
        json_line(
            {"log_namespace": "x", "log_format": "said", "time": 1, "level": "mine", "logger": "me", "message": "more", "traceback": "no"}
        )
    )
    assert (entry["message"], entry["level"], entry["logger"]) == ("said", "INFO", "x")
    own = ("time_", "level_", "logger_", "message_", "traceback_")
    assert [entry[name] for name in own] == [1, "mine", "me", "more", "no"]


def test_no_field_is_lost_to_another_that_got_an_underscore() -> None:
    entry = json.loads(json_line({"log_format": "said", "level": "one", "level_": "two"}))
    assert sorted(str(value) for name, value in entry.items() if name.startswith("level_")) == ["one", "two"]


@pytest.mark.parametrize(
    ("value", "told"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1.5, 1.5), (True, True), ([1], "[1]")]
)
def test_every_line_is_json_whatever_numbers_an_event_has(value: object, told: object) -> None:
    def refuse(name: str) -> object:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(json_line({"log_format": "x", "value": value}), parse_constant=refuse)["value"] == told


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


# --- what others log with


@pytest.fixture
def txaio_level() -> Iterator[None]:
    """txaio's level is the process's: it is put back."""
    before = tx.get_global_log_level()  # type: ignore[no-untyped-call]
    yield
    tx.set_global_log_level(before)  # type: ignore[no-untyped-call]


def txaio_logger(publisher: LogPublisher) -> Any:
    return tx.make_logger(observer=publisher)  # type: ignore[no-untyped-call]


def test_loggers_of_txaio_do_nothing_below_the_lowest_level_of_all(txaio_level: None) -> None:
    levels = LogLevels("WARNING", known=["meshgw.bind"])
    publisher, _ = logging_to(levels)
    log = txaio_logger(publisher)
    levels.govern()
    assert log.info == log.debug == log.trace != log.warn
    levels.set("meshgw.bind", "TRACE")
    assert log.trace not in (log.info, log.debug)
    levels.set("meshgw.bind", "OFF")
    assert log.info == log.trace


def test_txaios_trace_level_is_let_through_and_named(txaio_level: None) -> None:
    levels = LogLevels("DEBUG")
    publisher, stream = logging_to(levels, as_json=True)
    log = txaio_logger(publisher)
    levels.govern()
    log.trace("no")
    levels.set("root", "TRACE")
    log.trace("yes {what}", what=1)
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["message"], entry["what"]) == ("TRACE", "yes 1", 1)
    assert "txaio_trace" not in entry


def test_levels_that_do_not_govern_leave_txaio_alone(txaio_level: None) -> None:
    before = tx.get_global_log_level()  # type: ignore[no-untyped-call]
    LogLevels("OFF").set("root", "ALL")
    assert tx.get_global_log_level() == before  # type: ignore[no-untyped-call]


class Standard:
    """A logger of the standard library that reaches ``levels`` and is written as JSON."""

    def __init__(self, levels: LogLevels) -> None:
        publisher, self._stream = logging_to(levels, as_json=True)
        handler = StandardLogs(levels)
        # the records' loggers publish where this test looks
        handler._loggers["kazoo.client"] = Logger("kazoo.client", observer=publisher)
        self.log = logging.Logger("kazoo.client", 1)
        self.log.addHandler(handler)

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def test_the_standard_librarys_records_become_events_with_their_fields() -> None:
    standard = Standard(LogLevels("DEBUG"))
    standard.log.warning("lost %s {x}", "session", extra={"session": 7, "level": "x"})
    (entry,) = standard.entries
    assert (entry["level"], entry["logger"], entry["message"]) == ("WARNING", "kazoo.client", "lost session {x}")
    assert (entry["session"], entry["level_"]) == (7, "x")


def test_the_standard_librarys_records_are_held_to_the_levels() -> None:
    levels, watched = LogLevels("INFO"), Watched()
    standard = Standard(levels)
    standard.log.debug("%s", watched)
    assert standard.entries == []
    levels.set("kazoo", "DEBUG")
    standard.log.debug("ping")
    assert [(entry["level"], entry["message"]) for entry in standard.entries] == [("DEBUG", "ping")]


def test_an_exception_of_the_standard_library_has_its_traceback() -> None:
    standard = Standard(LogLevels())
    try:
        raise ValueError("x")
    except ValueError:
        standard.log.exception("bad")
    (entry,) = standard.entries
    assert entry["level"] == "ERROR" and entry["message"] == "bad" and "ValueError: x" in entry["traceback"]


def test_a_record_that_cannot_be_formatted_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    standard = Standard(LogLevels())
    standard.log.warning("%d", "text")
    assert standard.entries == []
