"""JSON text in pieces says what it says at once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.json_text import json_pieces

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4))


@given(VALUES, st.integers(0, 6))
def test_pieces_together_are_the_text(value: Any, depth: int) -> None:
    assert b"".join(json_pieces(value, depth)) == json.dumps(value).encode()


def test_endpoints_of_one_client_are_pieces_of_their_own() -> None:
    states = {"web": {"endpoints": [{"address": f"192.0.2.{number}:80"} for number in range(200)]}}
    assert max(map(len, json_pieces(states))) < 100
