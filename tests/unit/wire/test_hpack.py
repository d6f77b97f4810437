from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshgw.wire.h2_frames import Code, ConnectionFault
from meshgw.wire.h2_messages import FieldReader
from meshgw.wire.headers import FieldTable
from meshgw.wire.hpack import FieldDecoder
from meshgw.wire.hpack_table import STATIC_FIELDS
from meshgw.wire.hpack_writer import FieldEncoder, FieldWriter, literal

MOST = 4096
names = st.sampled_from([":method", ":path", ":status", "content-type", "x", "accept-encoding", "cookie", "grpc-status"]) | st.text(
    "abcxyz-", min_size=1, max_size=6
)
values = st.sampled_from(["GET", "/", "200", "gzip, deflate", "", "application/grpc"]) | st.text("abc 019/", max_size=40)
fields = st.lists(st.tuples(names, values), max_size=8)
blocks = st.lists(st.tuples(fields, st.booleans(), st.none() | st.sampled_from([0, 64, 200, 4096])), min_size=1, max_size=5)
changes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 200), st.sampled_from(["set", "flip", "cut", "insert"]), st.integers(0, 255)), max_size=3
)


def encoded(drawn: list[tuple[list[tuple[str, str]], bool, int | None]]) -> list[bytes]:
    """Blocks of one encoder, some Huffman-coded, some after a change of the table's size."""
    encoder, found = hpack.Encoder(), []
    for section, huffman, size in drawn:
        if size is not None:
            encoder.header_table_size = size
        found.append(encoder.encode(section, huffman=huffman))
    return found


def changed(sent: list[bytes], mutations: list[tuple[int, int, str, int]]) -> list[bytes]:
    """The blocks with some octets set, flipped, inserted or cut off."""
    found = list(sent)
    for which, at, how, octet in mutations:
        which %= len(found)
        block = bytearray(found[which])
        at = at % (len(block) + 1)
        if how == "cut":
            del block[at:]
        elif how == "insert":
            block.insert(at, octet)
        elif at < len(block):
            block[at] = octet if how == "set" else block[at] ^ 1 << octet % 8
        found[which] = bytes(block)
    return found


def a_decoder(table: int = 4096) -> FieldDecoder:
    return FieldDecoder(FieldReader(FieldTable()), most=MOST, table=table)


def read(decoder: FieldDecoder, block: bytes) -> list[tuple[bytes, bytes]]:
    return [(field.name, field.value) for field in decoder.decode(block).fields]


def theirs(decoder: hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    """What ``hpack`` makes of a block; None for an error."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack.HPACKError:
        return None


def ours(decoder: FieldDecoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    """What we make of it."""
    try:
        return read(decoder, block)
    except ConnectionFault:
        return None


@settings(max_examples=250)
@given(blocks, changes)
def test_blocks_right_and_wrong_mean_what_another_implementation_makes_of_them(
    drawn: list[tuple[list[tuple[str, str]], bool, int | None]], mutations: list[tuple[int, int, str, int]]
) -> None:
    mine, other = a_decoder(), hpack.Decoder(max_header_list_size=MOST)
    for block in changed(encoded(drawn), mutations):
        expected = theirs(other, block)
        assert ours(mine, block) == expected
        if expected is None:
            break


@settings(max_examples=120)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_random_octets_never_do_more_than_fail(drawn: list[bytes]) -> None:
    mine, other = a_decoder(), hpack.Decoder(max_header_list_size=MOST)
    for block in drawn:
        expected = theirs(other, block)
        assert ours(mine, block) == expected
        if expected is None:
            break


lines = st.lists(
    st.sampled_from(
        [b"X-A: 1", b"x-a: 2", b"x-b: 1", b"Cookie: secret", b"authorization: Basic eA==", b"Host: web", b"x-long: " + b"y" * 300]
    )
    | st.integers(0, 9).map(lambda number: b"x-id: %d" % number),
    max_size=8,
)
sizes = st.lists(st.sampled_from([0, 50, 100, 4096, 10000]), max_size=3)


@settings(max_examples=120)
@given(st.lists(st.tuples(lines, sizes), min_size=1, max_size=12))
def test_lines_are_read_back_as_fields_whatever_the_tables_size(drawn: list[tuple[list[bytes], list[int]]]) -> None:
    """Fields of one name keep their order, pseudo-header fields are first, and no more than two new sizes are told at once."""
    encoder, decoder = FieldEncoder(FieldWriter()), hpack.Decoder()
    allowed = 4096
    for section, changes_of_size in drawn:
        for size in changes_of_size:
            encoder.allow(size)
        if changes_of_size:
            allowed = changes_of_size[-1]
        decoder.max_allowed_table_size = max(decoder.max_allowed_table_size, allowed)
        block = encoder.block([b":method: GET", b":path: /", *section])
        found = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
        assert decoder.header_table_size <= min(allowed, 4096)
        expected = [(line.partition(b":")[0].lower(), line.partition(b":")[2].strip()) for line in section if line != b"Host: web"]
        assert sorted(found[:2]) == [(b":method", b"GET"), (b":path", b"/")]
        assert sorted(found[2:]) == sorted(expected)
        for name in {name for name, _ in expected}:
            assert [value for other, value in found if other == name] == [value for other, value in expected if other == name]


def test_a_table_that_shrank_and_grew_is_told_of_by_its_least_and_its_last_size() -> None:
    encoder = FieldEncoder(FieldWriter())
    for size in (2000, 50, 300, 70, 100):
        encoder.allow(size)
    assert encoder.block([b"x: y"]).startswith(b"\x3f\x13\x3f\x45\x00")


def test_a_table_is_not_told_of_when_nothing_has_changed() -> None:
    encoder = FieldEncoder(FieldWriter())
    encoder.allow(4096)
    encoder.allow(100000)
    assert encoder.block([b"x: y"]) == b"\0\1x\1y"


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 256, 20000])
def test_literals_of_any_size_are_read_back(size: int) -> None:
    name, value = b"n" * max(1, size // 2), b"v" * size
    for is_secret in (False, True):
        found = hpack.Decoder().decode(literal(name, value, 0x10 if is_secret else 0), raw=True)
        assert [(bytes(one), bytes(other)) for one, other in found] == [(name, value)]


def test_a_smaller_table_of_ours_must_be_kept_to_once_it_was_acknowledged() -> None:
    decoder = a_decoder(table=100)
    assert read(decoder, b"\x82") == [(b":method", b"GET")]
    decoder.acknowledged()
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(b"\x82")
    assert caught.value.code is Code.COMPRESSION_ERROR


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\x45", b"\x20\x3f\x45"])
def test_a_smaller_table_of_ours_is_told_of_first(update: bytes) -> None:
    decoder = a_decoder(table=100)
    decoder.acknowledged()
    assert read(decoder, update + b"\x82") == [(b":method", b"GET")]
    assert read(decoder, b"\x82") == [(b":method", b"GET")]


def test_a_peer_that_kept_to_a_smaller_table_before_need_not_tell_again() -> None:
    decoder = a_decoder(table=100)
    decoder.decode(b"\x20\x82")
    decoder.acknowledged()
    assert read(decoder, b"\x82") == [(b":method", b"GET")]


def test_blocks_that_are_remembered_are_forgotten_when_the_table_changes() -> None:
    decoder = a_decoder()
    decoder.decode(b"\x40\x01x\x01a")
    assert read(decoder, b"\xbe") == [(b"x", b"a")]
    assert read(decoder, b"\xbe") == [(b"x", b"a")]
    decoder.decode(b"\x40\x01x\x01b")
    assert read(decoder, b"\xbe") == [(b"x", b"b")]
    decoder.decode(b"\x20")
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


def test_a_section_that_grows_beyond_all_bounds_ends_decompression() -> None:
    with pytest.raises(ConnectionFault) as caught:
        a_decoder().decode(b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 1000)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


def test_the_static_table_is_that_of_the_specification() -> None:
    assert list(STATIC_FIELDS) == list(hpack.hpack.HeaderTable.STATIC_TABLE)


def test_a_block_with_a_field_that_is_never_to_be_indexed_is_not_remembered() -> None:
    decoder = a_decoder()
    blocks = [
        literal(b"x", b"1", 0x10),
        literal(b"authorization", b"1", 0),
        literal(b"cookie", b"a=b", 0),
        literal(b"x-b3-traceid", b"1", 0),
    ]
    assert [decoder.decode(b"\x82" + block).is_kept for block in blocks] == [False] * 4


def test_a_block_with_ordinary_literals_is_remembered() -> None:
    decoder = a_decoder()
    block = b"\x82" + literal(b":path", b"/call", 0) + literal(b"x", b"1", 0)
    assert decoder.decode(block) is decoder.decode(block)


def test_a_literal_is_read_anew_when_its_name_stands_in_a_table_that_changes() -> None:
    decoder = a_decoder()
    decoder.decode(b"\x40\x01x\x01a")
    assert read(decoder, b"\x0f\x2f\x01v") == [(b"x", b"v")]
    decoder.decode(b"\x40\x01y\x01a")
    assert read(decoder, b"\x0f\x2f\x01v") == [(b"y", b"v")]


def test_what_is_remembered_of_literals_is_bounded() -> None:
    reader = FieldReader(FieldTable())
    decoder = FieldDecoder(reader, most=MOST)
    for number in range(3000):
        decoder.decode(literal(b"x", b"%d" % number, 0))
        decoder.decode(literal(b"x-long", b"%d" % number * 300, 0))
    assert 0 < len(reader.literals) <= 1024
    assert max(map(len, reader.literals)) <= 256
