"""The parts of the HTTP client that do no I/O: paths, JSON, errors in words."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.backends.http_client import ApiAnswer, ApiClient, api_path
from meshgw.errors import BackendMalformed

NOBODY: Any = None
CLIENT = ApiClient(NOBODY, Clock(), name="Api", base="http://api:80")


@given(st.lists(st.text(min_size=1)))
@example(["..", ".", "a/b", "?x=1", "#", "%2e", "é", "a b", "..."])
def test_segments_of_a_path_reach_no_other_part_of_an_api(segments: list[str]) -> None:
    try:
        path = api_path(*segments)
    except UnicodeEncodeError:
        assert any("\ud800" <= letter <= "\udfff" for segment in segments for letter in segment)
        return
    assert path.isascii() and path.count("/") == len(segments)
    assert [unquote(part) for part in path.split("/")[1:]] == segments
    assert not any(part in (".", "..") or "?" in part or "#" in part for part in path.split("/"))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_is_read(value: object) -> None:
    assert CLIENT.read_json(json.dumps(value).encode()) == value


@given(st.binary())
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b"1" * 10_000)
@example(b'{"a": NaN')
@example(b"\xef\xbb\xbf{}")
def test_what_is_not_json_is_malformed_and_nothing_else(text: bytes) -> None:
    try:
        CLIENT.read_json(text, "/v1/x")
    except BackendMalformed as error:
        assert str(error).startswith("Api: it answered with ") and str(error).endswith(" (asked for /v1/x)")


def test_the_place_of_an_error_in_json_is_told_and_not_what_is_there() -> None:
    with pytest.raises(BackendMalformed) as caught:
        CLIENT.read_json(b'{"token": "secret",\n oops}')
    assert str(caught.value) == "Api: it answered with what is not JSON at line 2, column 2"
    with pytest.raises(BackendMalformed) as caught:
        CLIENT.read_json(b"[" * (sys.getrecursionlimit() * 100))
    assert str(caught.value) == "Api: it answered with JSON that is nested too deeply"


@given(st.binary(max_size=2000), st.integers(400, 599), st.sampled_from(["text/plain", "application/json", ""]))
def test_the_words_of_a_refusal_are_always_one_short_printable_line(body: bytes, status: int, kind: str) -> None:
    error = CLIENT.refused(ApiAnswer(status=status, headers={"content-type": kind}, body=body))
    assert error.code == status and str(error).isprintable() and len(str(error)) < 200
    str(error).encode()
