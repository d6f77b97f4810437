from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.exchange import Exchange
from meshgw.errors import BadRequest
from meshgw.wire.h2_frames import Code, StreamFault
from meshgw.wire.h2_messages import FieldReader, read_request, read_status
from meshgw.wire.headers import FieldTable, Headers
from meshgw.wire.hpack import Section
from meshgw.wire.hpack_writer import FieldEncoder, FieldWriter

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")]


def section(*fields: tuple[bytes, bytes], is_kept: bool = False, reader: FieldReader | None = None) -> Section:
    meanings = reader or FieldReader(FieldTable())
    return Section([meanings.field(name, value) for name, value in fields], is_kept=is_kept)


def read(*fields: tuple[bytes, bytes], ends: bool = True, reader: FieldReader | None = None) -> Exchange:
    ex, reader = Exchange(), reader or FieldReader(FieldTable())
    read_request(section(*fields, reader=reader), reader, ex, ends=ends)
    return ex


def changed(**pseudo: bytes | None) -> list[tuple[bytes, bytes]]:
    values = {name[1:].decode(): value for name, value in GET} | pseudo
    return [(b":" + name.encode(), value) for name, value in values.items() if value is not None]


def test_a_request_has_its_host_first_and_its_lines_in_order() -> None:
    ex = read(*GET, (b"x", b"1"), (b"y", b"2"), (b"x", b"3"))
    assert (ex.method, ex.target, ex.version, ex.length) == (b"GET", b"/", b"2", 0)
    assert ex.headers.lines == [b"host: web", b"x: 1", b"y: 2", b"x: 3"]
    assert ex.headers.seen == {b"host": b"web"}


def test_an_absolute_path_is_taken_apart() -> None:
    ex = read(*changed(path=b"http://other:81/a?b"))
    assert (ex.target, ex.headers.seen[b"host"]) == (b"/a?b", b"other:81")
    assert read(*changed(path=b"http://other?b")).target == b"/?b"


@pytest.mark.parametrize("host", [b"web", b"WEB"])
def test_a_host_that_means_the_same_as_the_authority_is_one_with_it(host: bytes) -> None:
    ex = read(*GET, (b"x", b"1"), (b"host", host))
    assert ex.headers.lines == [b"host: web", b"x: 1"]


@pytest.mark.parametrize("hosts", [(b"other",), (b"WEB", b"WEB"), (b"web:80",)])
def test_a_host_that_differs_from_the_authority_is_refused(hosts: tuple[bytes, ...]) -> None:
    with pytest.raises(StreamFault):
        read(*GET, *((b"host", host) for host in hosts))


@pytest.mark.parametrize(("fields", "length"), [([], -1), ([(b"content-length", b"0")], 0), ([(b"content-length", b"17")], 17)])
def test_the_length_of_a_body_is_what_is_told(fields: list[tuple[bytes, bytes]], length: int) -> None:
    assert read(*GET, *fields, ends=False).length == length


@pytest.mark.parametrize("code", [405, 400])
def test_what_is_well_formed_and_not_served_is_answered(code: int) -> None:
    fields = [(b":method", b"CONNECT"), (b":authority", b"web:1")] if code == 405 else changed(authority=None)
    with pytest.raises(BadRequest) as caught:
        read(*fields)
    assert caught.value.status == code


def test_a_name_with_a_colon_is_refused_even_if_its_line_is_known() -> None:
    """``x`` with ``y: z`` and ``x: y`` with ``z`` make the same line."""
    reader = FieldReader(FieldTable())
    read(*GET, (b"x", b"y: z"), reader=reader)
    read(*GET, (b"x", b"y: z"), reader=reader)
    with pytest.raises(StreamFault):
        read(*GET, (b"x: y", b"z"), reader=reader)


octets = st.binary(max_size=12) | st.sampled_from([b"web", b"/", b"GET", b"http", b"trailers", b"close", b"0", b"5"])
field_names = st.binary(max_size=10) | st.sampled_from(
    [
        b":method",
        b":path",
        b":scheme",
        b":authority",
        b":status",
        b"x",
        b"te",
        b"host",
        b"content-length",
        b"connection",
        b"transfer-encoding",
    ]
)


@given(st.lists(st.tuples(field_names, octets), max_size=6), st.booleans())
def test_nothing_that_is_read_can_be_taken_for_something_else_over_http1(fields: list[tuple[bytes, bytes]], whole: bool) -> None:
    try:
        ex = read(*(GET if whole else []), *fields)
    except (StreamFault, BadRequest):
        return
    for line in (ex.request_line(), *ex.headers.lines):
        assert not {0, 10, 13} & set(line)
    assert ex.request_line().count(b" ") == 2
    names = [line.partition(b":")[0] for line in ex.headers.lines]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") <= 1
    assert not {b"connection", b"transfer-encoding", b"te", b""} & set(names)
    assert all(name == name.lower().strip() and b" " not in name for name in names)


@given(st.lists(st.tuples(field_names, octets), max_size=6), st.booleans())
def test_a_verdict_does_not_depend_on_what_was_read_before(fields: list[tuple[bytes, bytes]], kept: bool) -> None:
    def verdict(reader: FieldReader, one: Section) -> object:
        ex = Exchange()
        try:
            read_request(one, reader, ex, ends=True)
        except (StreamFault, BadRequest) as error:
            return type(error)
        return (ex.method, ex.target, ex.headers.lines, ex.headers.seen)

    reader = FieldReader(FieldTable())
    one = section(*GET, *fields, is_kept=kept, reader=reader)
    first = verdict(reader, one)
    assert [verdict(reader, one) for _ in range(3)] == [first] * 3
    assert verdict(FieldReader(FieldTable()), section(*GET, *fields)) == first


def test_a_kept_section_is_not_changed_by_who_read_it() -> None:
    reader = FieldReader(FieldTable())
    one = section(*GET, (b"x", b"1"), is_kept=True, reader=reader)
    first, second = Exchange(), Exchange()
    read_request(one, reader, first, ends=True)
    first.headers.add(b"y", b"2")
    read_request(one, reader, second, ends=True)
    assert second.headers.lines == [b"host: web", b"x: 1"]


def test_a_kept_section_is_a_head_or_trailers_by_its_place() -> None:
    reader = FieldReader(FieldTable())
    one = section((b"x", b"1"), (b"content-length", b"1"), is_kept=True, reader=reader)
    head = Headers()
    for _ in range(2):
        assert reader.trailers(one) == [b"x: 1"]
        reader.headers(one, 0, head)
        assert head.lines == [b"x: 1", b"content-length: 1"]


@pytest.mark.parametrize("value", [b"200", b"100", b"599", b"999"])
def test_a_status_of_three_digits_is_read(value: bytes) -> None:
    assert read_status(section((b":status", value)).fields) == int(value)


@pytest.mark.parametrize(
    "fields", [[], [(b":status", b"20")], [(b":status", b"200"), (b":path", b"/")], [(b"x", b"y"), (b":status", b"200")]]
)
def test_an_answer_without_its_status_is_malformed(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(StreamFault) as caught:
        read_status(section(*fields).fields)
    assert caught.value.code is Code.PROTOCOL_ERROR


def test_few_lines_are_remembered_and_blocks_right_when_lines_never_end() -> None:
    writer, decoder = FieldWriter(), hpack.Decoder()
    encoder = FieldEncoder(writer)
    for number in range(20000):
        line = b"x-%d: y" % (number // 2)  # each twice, so that it is put into the table
        found = decoder.decode(encoder.block([b":status: 200", line, b"x-always: 1"]), raw=True)
        assert {(bytes(name), bytes(value)) for name, value in found} == {
            *((b":status", b"200"), (b"x-always", b"1")),
            (b"x-%d" % (number // 2), b"y"),
        }
    assert len(writer._once) <= 4096
    assert len(writer._again) <= 4096


def test_the_path_of_a_request_is_its_own_when_all_other_fields_are_known() -> None:
    reader = FieldReader(FieldTable())
    paths = [b"/%d" % (number % 700) for number in range(1500)]
    assert [read(*changed(path=path), reader=reader).target for path in paths] == paths
    assert len(reader.starts) <= 256


def test_authority_is_no_secret_and_credentials_are() -> None:
    writer = FieldWriter()
    encoder = FieldEncoder(writer)
    lines = [b":authority: web", b"authorization: Bearer 1", b"x-auth: 2", b"set-cookie: a=b"]
    blocks = [encoder.block(lines) for _ in range(4)]
    assert blocks[2] == blocks[3] == b"\xbe" + b"\x1f\x08\x08Bearer 1" + b"\x10\x06x-auth\x012" + b"\x1f\x28\x03a=b"
    assert not any(b"Bearer" in line for kept in (writer._once, writer._again, encoder) for line in kept)
