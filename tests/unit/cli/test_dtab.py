"""The ``dtab`` subcommand, without network and reactor; against real processes it is in integration/test_dtab_command."""

from __future__ import annotations

import argparse

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meshgw.cli.dtab import NOT_BOUND, TROUBLE, Load, add_arguments, first_answer, run
from meshgw.core.live import Ok, Pending, Source, State
from meshgw.naming.delegation import DelegateNeg, Delegation
from meshgw.naming.path import Path

NEG = DelegateNeg(Path.read("/a"), None)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("words", [(), ("/a",), ("/a", "--config", "x", "--admin", "y")])
def test_a_path_and_exactly_one_source_are_needed(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*words)
    assert ended.value.code == TROUBLE != NOT_BOUND


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("/a^",), "'/a[^]'"),
        (("/a", "--dtab", "/x=/y"), "  ^"),
        (("/a", "--timeout", "0"), "--timeout must be positive"),
        (("/a", "--timeout", "nan"), "--timeout must be positive"),
    ],
)
def test_wrong_arguments_are_explained(words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    load: Load = pytest.fail  # type: ignore[assignment]  # must not be reached
    assert run(parsed(*words, "--config", "x"), load) == TROUBLE
    assert problem in capsys.readouterr().err


def test_another_scheme_than_http_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed("/a", "--admin", "file:///etc/passwd")) == TROUBLE
    assert "expected an http or https address" in capsys.readouterr().err


def waiting(source: Source[Delegation], clock: Clock) -> list[State[Delegation]]:
    results: list[State[Delegation]] = []
    Deferred.fromCoroutine(first_answer(clock, source, 2.0)).addCallback(results.append)
    return results


def test_the_first_answer_is_taken_and_the_source_released() -> None:
    clock, source = Clock(), Source[Delegation]()
    results = waiting(source, clock)
    source.pend("a file")
    assert results == []
    source.set(NEG)
    assert results == [Ok(NEG)]
    assert not source.is_observed
    assert clock.getDelayedCalls() == []


def test_without_an_answer_what_is_awaited_is_told_after_the_timeout() -> None:
    clock, source = Clock(), Source[Delegation]()
    results = waiting(source, clock)
    source.pend("a file")
    clock.advance(2.0)
    assert results == [Pending("a file")]
    assert not source.is_observed
