"""Protocol Buffers' wire format: written fields are read back, and no bytes break the reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.wire.protobuf import MalformedMessage, block, fields, fixed32, fixed64, number, signed, varint

numbers = st.integers(1, 2**29 - 1)


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (150, "9601"), (2**64 - 1, "ff" * 9 + "01")]
)
def test_varint_is_as_the_guide_has_it(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded


def test_message_of_the_guide_is_encoded_as_there() -> None:
    assert number(1, 150).hex() == "089601"
    assert block(2, b"testing").hex() == "120774657374696e67"


@given(numbers, st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_are_read_back(field: int, value: int) -> None:
    ((found, raw),) = fields(number(field, value))
    assert isinstance(raw, int)
    assert (found, signed(raw)) == (field, value)


@given(numbers, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_fields_are_read_in_their_order(field: int, wide: int, narrow: int, data: bytes) -> None:
    message = fixed64(field, wide) + block(field, data) + fixed32(field, narrow)
    assert list(fields(message)) == [(field, wide), (field, data), (field, narrow)]


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        assert all(isinstance(field, int) for field, _ in fields(data))
    except MalformedMessage:
        pass


@pytest.mark.parametrize("data", [b"\x80", b"\x0a\x05ab", b"\x09\x00", b"\x0b", b"\x08" + b"\xff" * 11])
def test_what_is_cut_off_or_unknown_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        list(fields(data))
