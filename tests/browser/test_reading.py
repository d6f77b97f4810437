"""The modules of the dashboard that need no page: what they make of data, called in the browser as pages call them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from support.dashboard import Mesh

pytestmark = pytest.mark.integration

Node = dict[str, Any]


@pytest.fixture(scope="module")
def page(browser: Browser, mesh: Mesh) -> Page:
    page = browser.new_page()
    page.goto(f"{mesh.url}/help")
    return page


def call(page: Page, module: str, expression: str, *values: object) -> Any:
    """The value of ``expression``, in which ``m`` is the module and ``v`` are the values."""
    code = f"async ([path, v]) => {{ const m = await import(path); return {expression}; }}"
    return page.evaluate(code, [f"/admin/files/{module}.js", json.loads(json.dumps(values))])


def leaf(name: str, *ports: int) -> Node:
    addr = {"type": "bound", "addrs": [{"ip": "127.0.0.1", "port": port, "meta": {}} for port in ports], "meta": {}}
    return {"type": "leaf", "path": name, "bound": {"addr": addr, "id": name, "path": "/"}}


def neg(name: str = "/none") -> Node:
    return {"type": "neg", "path": name}


def plain(kind: str) -> Node:
    return {"type": kind, "path": "/x", "message": "broken"}


def alt(*trees: Node) -> Node:
    return {"type": "alt", "path": "/alt", "alt": list(trees)}


def union(*branches: tuple[float, Node]) -> Node:
    return {"type": "union", "path": "/union", "union": [{"weight": weight, "tree": tree} for weight, tree in branches]}


def to(tree: Node) -> Node:
    return {"type": "delegate", "path": "/to", "delegate": tree}


FAILING = {"type": "neg", "path": "/#/io.l5d.consul/dc1/web", "message": "Consul refuses"}
STALE = {
    "type": "leaf",
    "path": "/#/io.l5d.consul/dc1/web",
    "bound": {
        "id": "/#/io.l5d.consul/dc1/web",
        "path": "/",
        "addr": {"type": "bound", "addrs": [{"ip": "::1", "port": 1}], "stale": "Consul refuses"},
    },
}


@pytest.mark.parametrize(
    ("tree", "verdict"),
    [
        (leaf("/a", 1), "leaf"),
        (to(to(neg())), "neg"),
        (alt(neg(), leaf("/a", 1), plain("fail")), "leaf"),
        (alt(neg(), plain("fail"), leaf("/a", 1)), "fail"),
        (alt(plain("empty"), leaf("/a", 1)), "empty"),
        (alt(plain("exception"), leaf("/a", 1)), "exception"),
        (alt(neg(), neg()), "neg"),
        (alt(), "neg"),
        (union((1, neg()), (1, leaf("/a", 1))), "leaf"),
        (union((1, neg()), (1, plain("empty"))), "empty"),
        (union((1, neg()), (1, plain("fail"))), "neg"),
        (union((1, plain("exception")), (1, plain("exception"))), "exception"),
        (union((1, plain("exception")), (1, leaf("/a", 1))), "leaf"),
        (alt(union((1, neg())), to(leaf("/a", 1))), "leaf"),
        ({"type": "transformation", "path": "/t", "name": "x", "bound": leaf("/b")["bound"], "tree": leaf("/a", 1)}, "leaf"),
        ({"type": "something new", "path": "/n"}, "neg"),
    ],
)
def test_a_tree_ends_as_routing_ends(page: Page, tree: Node, verdict: str) -> None:
    assert call(page, "delegation", "m.verdict(v[0])", tree) == verdict


def test_the_way_taken_has_the_first_alternative_that_is_known_and_every_branch_of_a_union_that_is_drawn(page: Page) -> None:
    tree = alt(neg("/first"), union((1, leaf("/a", 1)), (1, neg("/lost")), (0, leaf("/idle", 2))), leaf("/late", 3))
    assert call(page, "delegation", "[...m.taken(v[0])].map((node) => node.path).sort()", tree) == ["/a", "/alt", "/union"]


def test_shares_are_those_of_the_branches_that_answer(page: Page) -> None:
    tree = union((3, leaf("/a", 1)), (1, to(alt(neg(), leaf("/b", 2)))), (6, neg()))
    found = call(page, "delegation", "m.destinations(v[0]).map(({ bound, share }) => [bound.id, share])", tree)
    assert found == [["/a", 0.75], ["/b", 0.25]]
    assert call(page, "delegation", "m.branches(v[0]).map(({ share }) => share)", union((0, leaf("/a", 1)), (0, leaf("/b", 1)))) == [
        0.5,
        0.5,
    ]


def test_shares_multiply_along_the_way(page: Page) -> None:
    tree = union((1, union((1, leaf("/a", 1)), (1, leaf("/b", 1)))), (1, leaf("/c", 1)))
    assert call(page, "delegation", "m.destinations(v[0]).map(({ share }) => share)", tree) == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("tree", "kind", "words"),
    [
        (leaf("/a", 1, 2), "good", "Requests go to 1 destination with 2 addresses."),
        (leaf("/a"), "bad", "without any address"),
        (union((1, leaf("/a", 1)), (1, leaf("/b"))), "warn", "its share of requests fails"),
        (neg(), "bad", "refused with a 502"),
        (alt(plain("exception"), leaf("/a", 1)), "bad", "Requests fail: broken"),
        (union((1, plain("exception"))), "bad", "Requests fail: broken"),
        (plain("fail"), "bad", "refused"),
        (plain("empty"), "bad", "no replicas"),
        (alt(FAILING, neg()), "bad", "Whether there is such a name cannot be told (Consul refuses)"),
        (alt(FAILING, leaf("/a", 1)), "warn", "What is tried before is taken as unknown (Consul refuses)"),
        (alt(leaf("/a", 1), FAILING), "good", "Requests go to 1 destination"),
        (STALE, "warn", "Their source has failed since: Consul refuses"),
    ],
)
def test_the_outcome_is_told_in_a_sentence(page: Page, tree: Node, kind: str, words: str) -> None:
    told = call(page, "delegation", "m.outcome(v[0])", tree)
    assert told["kind"] == kind
    assert words in told["text"]


@pytest.mark.parametrize(
    ("addr", "text"),
    [
        ({"type": "bound", "addrs": [], "meta": {}}, "No addresses now"),
        ({"type": "bound", "addrs": [{"ip": "::1", "port": 1}], "stale": "gone"}, "1 address (last good answer; since then: gone)"),
        ({"type": "failed", "cause": "refused"}, "Addresses cannot be had: refused"),
        ({"type": "neg"}, "does not exist any more"),
        ({"type": "pending"}, "not known yet"),
    ],
)
def test_the_state_of_addresses_is_told(page: Page, addr: Node, text: str) -> None:
    assert text in call(page, "delegation", "m.addressText(v[0])", addr)


def test_an_address_shows_its_weight_and_what_else_is_said_of_it(page: Page) -> None:
    one = {"ip": "::1", "port": 80, "meta": {"endpoint_addr_weight": 0.5, "node": "a"}}
    assert call(page, "delegation", "m.addressLabel(v[0])", one) == {"text": "[::1]:80", "weight": 0.5, "notes": ["node: a"]}


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0, "0 %"), (0.25, "25 %"), (1 / 3, "33.3 %"), (0.0004, "<0.1 %"), (0.9996, "100 %")]
)
def test_shares_are_shown_as_percentages(page: Page, share: float, text: str) -> None:
    assert call(page, "delegation", "m.percent(v[0])", share) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("/a=>/b", [["/a", "/b", 1]]),
        ("/a => /b ;\n\n  /c => 3 * /d\n & /e;", [["/a", "/b", 1], ["/c", "3 * /d & /e", 3]]),
        ("/svc => /#/io.l5d.fs; # a comment; with => signs\n/a#x => /b", [["/svc", "/#/io.l5d.fs", 1], ["/a#x", "/b", 2]]),
        ("# only a comment", []),
        ("/a => ; /b =>", [["/a", "", 1], ["/b", "", 1]]),
        ("no entry at all", []),
    ],
)
def test_a_dtab_is_taken_apart_into_its_entries(page: Page, text: str, expected: list[list[object]]) -> None:
    assert call(page, "dtab", "m.entries(v[0]).map(({ prefix, dst, line }) => [prefix, dst, line])", text) == expected


@pytest.mark.parametrize(
    ("text", "dentry", "place"),
    [
        ("/a=>/b; /c=>/d", {"prefix": "/c", "dst": "/d"}, 1),
        ("/a=>/b; /a=>/b", {"prefix": "/a", "dst": "/b"}, 1),
        ("/a => 9 * /b & 1*/c; /a => /x", {"prefix": "/a", "dst": "9.00*/b & /c"}, 0),
        ("/a => (/b)", {"prefix": "/a", "dst": "/b"}, 0),
        ("/a => /b", {"prefix": "/z", "dst": "/b"}, -1),
        ("/a => /b; /a => /c", {"prefix": "/a", "dst": "/d"}, -1),
    ],
)
def test_an_entry_is_found_by_what_the_gateway_calls_it(page: Page, text: str, dentry: Node, place: int) -> None:
    assert call(page, "dtab", "m.placeOf(m.entries(v[0]), v[1])", text, dentry) == place


def test_the_place_of_an_error_is_read_and_shown(page: Page) -> None:
    message = "Invalid dtab: '=>' expected but '=' found at line 2, column 4 in '/a=>/b;\n/c = /d'"
    assert call(page, "dtab", "m.errorPlace(v[0])", message) == {"line": 2, "column": 4, "what": "'=>' expected but '=' found"}
    assert call(page, "dtab", "m.errorPlace(v[0])", "no place") is None
    place = {"line": 2, "column": 4}
    assert call(page, "dtab", "m.caretAt(v[0], v[1])", "/a=>/b;\n/c\t= /d", place) == {"source": "/c\t= /d", "caret": "  \t^"}
    assert call(page, "dtab", "m.offsetOf(v[0], v[1])", "/a=>/b;\n/c = /d", place) == 11


@pytest.mark.parametrize(
    "place",
    [
        {"router": "web", "path": "/svc/users", "trial": None},
        {"router": "a b&c", "path": "/#/io.l5d.fs/50%", "trial": "/a => /b;\n/c => 1*/d & 2*/e"},
        {"router": None, "path": "", "trial": None},
        {"router": None, "path": "", "trial": ""},
    ],
)
def test_the_address_of_the_playground_is_read_as_it_was_written(page: Page, place: Node) -> None:
    code = "(() => { const url = new URL(m.placeUrl(v[0]), 'http://x'); return m.readPlace(url); })()"
    assert call(page, "place", code, place) == place


def test_links_in_the_form_of_linkerd_are_understood(page: Page) -> None:
    read = call(page, "place", "m.readPlace(new URL('http://x/delegator?router=web#/svc/50%'))")
    assert read == {"router": "web", "path": "/svc/50%", "trial": None}


def test_names_are_suggested_by_the_entries_that_lead_to_them(page: Page) -> None:
    dtab = [
        {"prefix": "/svc", "dst": "/#/fs"},
        {"prefix": "/svc/alias", "dst": "/svc/web"},
        {"prefix": "/x/*", "dst": "/#/fs"},
        {"prefix": "/#/n/a", "dst": "/b"},
    ]
    assert call(page, "place", "m.suggestions(v[0], v[1], 9)", dtab, ["/#/fs/web", "/#/fsx/no"]) == ["/svc/web", "/svc/alias"]
    assert call(page, "place", "m.suggestions(v[0], v[1], 1)", dtab, ["/#/fs/web"]) == ["/svc/web"]


def test_names_that_begin_with_what_is_typed_are_offered_before_those_that_contain_it(page: Page) -> None:
    names = ["/svc/a/svc/b", "/svc/b1", "/svc/b2", "/svc/c"]
    assert call(page, "place", "m.containing(v[0], v[1], 9)", names, "/svc/b") == ["/svc/b1", "/svc/b2", "/svc/a/svc/b"]
    assert call(page, "place", "m.containing(v[0], v[1], 1)", names, "/svc/b") == ["/svc/b1"]
    assert call(page, "place", "m.containing(v[0], v[1], 9)", names, "") == names


def loggers(**levels: str) -> list[dict[str, str]]:
    return [{"logger": name.replace("_", "."), "level": level} for name, level in levels.items()]


def test_levels_equal_to_those_above_are_inherited(page: Page) -> None:
    given = loggers(a="INFO", a_b_c="INFO", a_d="DEBUG", root="INFO", z="OFF")
    found = call(page, "levels", "m.rows(v[0]).map((row) => [row.name, row.parent, row.depth, row.isInherited])", given)
    assert found == [
        ["root", None, 0, False],
        ["a", "root", 0, True],
        ["a.b.c", "a", 1, True],
        ["a.d", "a", 1, False],
        ["z", "root", 0, False],
    ]


def test_who_inherits_a_level_follows_its_change(page: Page) -> None:
    given = loggers(root="INFO", a="INFO", a_b="INFO", a_c="OFF", a_c_d="OFF")
    changed = call(page, "levels", "m.withLevel(v[0], 'root', 'DEBUG')", given)
    assert changed == loggers(root="DEBUG", a="DEBUG", a_b="DEBUG", a_c="OFF", a_c_d="OFF")


def test_loggers_are_found_by_name_and_by_level(page: Page) -> None:
    given = loggers(root="INFO", meshgw_bind="DEBUG", twisted="INFO")
    find = "m.matching(m.rows(v[0]), v[1]).map((row) => row.name)"
    assert call(page, "levels", find, given, "BIND") == ["meshgw.bind"]
    assert call(page, "levels", find, given, "info") == ["root", "twisted"]
    assert call(page, "levels", find, given, " ") == ["root", "meshgw.bind", "twisted"]


@pytest.mark.parametrize(("ms", "text"), [(0.42, "0.4 ms"), (12.4, "12 ms"), (999, "999 ms"), (1234, "1.23 s"), (61_000, "61.0 s")])
def test_durations_are_shown_as_people_read_them(page: Page, ms: float, text: str) -> None:
    assert call(page, "requestrows", "m.duration(v[0])", ms) == text
