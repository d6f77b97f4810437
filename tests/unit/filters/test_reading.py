"""Nobody gets around a rule about a path by spelling it otherwise: compared with the readings that servers are known to make."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshgw.filters.reading import exact, folded, generous, is_possibly_below, is_surely_below, path_of

ADMIN = ("admin",)

SPELLINGS = [
    b"/admin",
    b"/admin/",
    b"/admin/users",
    b"//admin",
    b"///admin//x",
    b"/./admin",
    b"/%2e/admin",
    b"/x/../admin",
    b"/x/%2e%2e/admin",
    b"/x/%2E./admin",
    b"/x/..%2fadmin",
    b"/x/..;/admin",
    b"/x/..;a=b/admin",
    b"/x\\..\\admin",
    b"\\admin",
    b"/%5cadmin",
    b"/%2fadmin",
    b"/%61dmin",
    b"/%2561dmin",
    b"/%252561dmin",
    b"/ADMIN",
    b"/Admin;v=1",
    b"/admin%3bv=1",
    b"/admin.",
    b"/admin%20",
    b"/admin%00",
    b"/admin#x",
    b"/admin%23",
    b"/admin%3fx",
    b"/%c0%afadmin",
    b"/%ef%bc%8fadmin",
    b"/%ef%bd%81dmin",
    b"/%u0061dmin",
    b"/x/%c0%ae%c0%ae/admin",
    b"/x/%u002e%u002e/admin",
    b"/x/.%00./admin",
    b"/;/admin",
    b"/;a/admin",
    b"/.;/admin",
    b"*",
    b"admin.example:443",
    b"/%2525252525252e/admin",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_a_denied_path_is_found_in_every_spelling(path: bytes) -> None:
    assert is_possibly_below(ADMIN, path)


@pytest.mark.parametrize("path", [b"/", b"/administrator", b"/users/admin", b"/adm%69", b"/a.dmin", b"/.well-known/admin", b"/x;/y"])
def test_other_paths_are_not_denied_with_it(path: bytes) -> None:
    assert not is_possibly_below(ADMIN, path)


@pytest.mark.parametrize("path", [path for path in SPELLINGS if not path.startswith((b"/admin", b"/ADMIN"))])
def test_a_path_is_allowed_only_as_it_is_written(path: bytes) -> None:
    assert not is_surely_below(ADMIN, path)


@pytest.mark.parametrize("path", [b"/admin", b"/admin/", b"/admin/a%2Fb", b"/admin//x", b"/admin/x;v=1", b"/admin/./x", b"/admin/100%25"])
def test_what_stays_below_an_allowed_path_is_allowed(path: bytes) -> None:
    assert is_surely_below(ADMIN, path)


@pytest.mark.parametrize(
    "path",
    [
        b"/admin/..",
        b"/admin/%2e%2e/x",
        b"/admin/..%2fx",
        b"/admin/..;/x",
        b"/admin\\..\\x",
        b"/admin;x",
        b"/admin#x",
        b"/adminx",
        b"/admin/%zz",
    ],
)
def test_what_may_leave_an_allowed_path_is_not(path: bytes) -> None:
    assert not is_surely_below(ADMIN, path)


def test_every_path_is_below_the_root_unless_it_climbs() -> None:
    assert is_surely_below((), b"/a%20b//c")
    assert not is_surely_below((), b"/a/../b")
    assert not is_surely_below((), b"*")
    assert is_possibly_below((), b"*")


def test_the_query_belongs_to_no_path() -> None:
    assert path_of(b"/a/b?/../c") == b"/a/b"
    assert exact(b"/a//b/") == ("a", "", "b", "")


def test_the_final_dots_of_a_prefix_do_not_protect_it() -> None:
    assert is_possibly_below(folded(("a.", "B")), b"/A./b")


# Every way to read a path that is known of servers: decode so often, then take these for separators, cut parameters, climb or not, fold.
ATOMS = [
    b"/",
    b"a",
    b"b",
    b".",
    b"..",
    b"%2e",
    b"%2E",
    b"%2f",
    b"%5c",
    b"\\",
    b"%61",
    b"%2561",
    b"%252e",
    b";",
    b"%3b",
    b"#",
    b"%23",
    b"A",
    b"%25",
]
PATHS = st.lists(st.sampled_from(ATOMS), max_size=9).map(lambda atoms: b"/" + b"".join(atoms))


def readings(path: bytes) -> set[bytes]:
    found = set()
    for times in range(4):
        for backslash in (b"\\", b"/"):
            for cut in (False, True):
                for resolve in (False, True):
                    text = path.partition(b"#")[0]
                    for _ in range(times):
                        text = unquote_to_bytes(text)
                    text = text.replace(b"\\", backslash)
                    if cut:
                        text = b"/".join(part.partition(b";")[0] for part in text.split(b"/"))
                    if resolve:
                        text = posixpath.normpath(b"/" + text.lstrip(b"/"))
                    found |= {text, text.lower()}
    return found


def below(prefix: bytes, reading: bytes) -> bool:
    return reading == prefix or reading.startswith(prefix + b"/")


@given(PATHS)
@example(b"/b/..;/a")
@example(b"/a/%2e%2e%2fb")
def test_no_known_reading_gets_past_a_rule_that_denies(path: bytes) -> None:
    for prefix, segments in ((b"/a", ("a",)), (b"/a/b", ("a", "b"))):
        if any(below(prefix, reading) for reading in readings(path)):
            assert is_possibly_below(segments, path)


@given(PATHS)
@example(b"/a/b/..")
def test_all_known_readings_stay_below_what_a_rule_allows(path: bytes) -> None:
    for prefix, segments in ((b"/a", ("a",)), (b"/a/b", ("a", "b"))):
        if is_surely_below(segments, path):
            assert all(below(prefix, reading) for reading in readings(path))


@given(st.binary(max_size=40))
def test_any_bytes_have_a_reading_or_none(path: bytes) -> None:
    reading = generous(path)
    assert reading is None or ".." not in reading


@given(st.lists(st.text("abc123-_~", min_size=1), max_size=5))
def test_a_plain_path_has_one_reading(segments: list[str]) -> None:
    path = ("/" + "/".join(segments)).encode()
    assert generous(path) == tuple(segments)
    assert is_surely_below(tuple(segments), path)


def test_a_segment_that_ends_in_a_dot_is_not_taken_for_an_ordinary_one() -> None:
    assert generous(b"/A./b") == ("a", "b")
    assert generous(b"/a../b") == ("a", "b")
