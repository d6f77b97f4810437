"""Entries of lists that are told again and again: what is read is what reading everything anew would give."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.backends.json_entries import LOOK_AHEAD, Entries
from meshgw.core.slices import finished

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6
)
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " :\r\n")])


class Counting:
    """Takes entries as they are, and counts."""

    def __init__(self) -> None:
        self.read: list[Any] = []
        self.entries: Entries[Any] = Entries(self)

    def __call__(self, data: Any) -> Any:
        self.read.append(data)
        return data

    def of(self, body: bytes) -> list[Any] | None:
        self.read.clear()
        return finished(self.entries.of(body))


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_each_list_says_what_the_whole_text_says(pool: list[Any], data: st.DataObject) -> None:
    counting = Counting()
    for _ in range(4):
        said = data.draw(st.lists(st.sampled_from(pool), max_size=8))
        separators, is_ascii = data.draw(SPACES), data.draw(st.booleans())
        body = f" {json.dumps(said, separators=separators, ensure_ascii=is_ascii)}\n".encode("utf-8", "surrogatepass")
        assert counting.of(body) == json.loads(body)


@given(st.lists(st.dictionaries(st.text(max_size=3), SCALARS, max_size=2), max_size=4), st.data())
def test_what_is_no_json_is_refused_where_the_whole_text_is(said: list[Any], data: st.DataObject) -> None:
    counting = Counting()
    text = json.dumps(said)
    counting.of(text.encode())
    at = data.draw(st.integers(0, len(text)))
    broken = (
        text[:at] + data.draw(st.sampled_from(["", ",", "]", "{", "x", "0", '"', " "])) + text[at + data.draw(st.integers(0, 2)) :]
    ).encode()
    try:
        expected = json.loads(broken)
    except json.JSONDecodeError as error:
        with pytest.raises(json.JSONDecodeError) as refused:
            counting.of(broken)
        assert (refused.value.lineno, refused.value.colno) == (error.lineno, error.colno)
    else:
        assert counting.of(broken) == (expected if isinstance(expected, list) else None)


def test_only_entries_whose_text_is_new_are_read() -> None:
    counting = Counting()
    before = [{"id": number} for number in range(50)]
    first = counting.of(json.dumps(before).encode())
    assert counting.read == before
    assert first is not None
    after = [*before[:10], {"id": "new"}, *before[11:30], *before[33:]]
    again = counting.of(json.dumps(after).encode())
    assert counting.read == [{"id": "new"}]
    assert again is not None
    assert again == after
    assert again[-1] is first[-1]


def test_entries_behind_more_that_went_than_are_looked_past_are_read_again() -> None:
    counting = Counting()
    before = [{"id": number} for number in range(LOOK_AHEAD * 3)]
    counting.of(json.dumps(before).encode())
    after = before[LOOK_AHEAD + 1 :]
    assert counting.of(json.dumps(after).encode()) == after
    assert counting.read == after


def test_number_is_not_known_by_how_it_begins() -> None:
    counting = Counting()
    counting.of(b"[1,2]")
    assert counting.of(b"[12,2]") == [12, 2]


def test_nothing_of_a_list_that_is_broken_off_is_kept() -> None:
    counting = Counting()
    counting.of(b'[{"id":1}]')
    with pytest.raises(ValueError, match="delimiter"):
        counting.of(b'[{"id":2},{"id":1}')
    assert counting.of(b'[{"id":2}]') == [{"id": 2}]
    assert counting.read == [{"id": 2}]


@pytest.mark.parametrize("body", [b"{}", b"null", b'"["', b"0"])
def test_json_that_is_no_list_gives_none(body: bytes) -> None:
    assert Counting().of(body) is None


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(RecursionError):
        Counting().of(b"[" * 100_000)
