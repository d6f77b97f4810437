"""Names that change while requests run: files of the fs namer, and the dtab file of the fs interpreter."""

from __future__ import annotations

import pytest

from support.gateways import LOOPBACK, MANY, SECONDS, Gateway, Nginx, gateway
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration


def named(running: Running, name: str) -> Nginx:
    """nginx that answers with its own name."""
    return Nginx(running, f'location / {{ return 200 "{name}"; }}', name=name)


def answers(gw: Gateway, count: int = MANY) -> set[str]:
    """What a number of requests for `web` are answered."""
    return {gw.get("web").text for _ in range(count)}


def becomes(gw: Gateway, *expected: str) -> None:
    """Wait until requests are answered by exactly these instances."""
    assert wait_until(lambda: answers(gw) == set(expected), SECONDS), answers(gw)


def test_instances_come_and_go_with_the_lines_of_a_file(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    gw = gateway(running, {"web": one.port})
    assert answers(gw) == {"one"}
    gw.serve("web", one.port, two.port)
    becomes(gw, "one", "two")
    (gw.root / "web").write_text(f"{LOOPBACK} {two.port}\n")
    becomes(gw, "two")
    size = gw.metrics()["rt/http/client/#/io.l5d.fs/web/loadbalancer/size"]
    assert size == 1
    assert "Traceback" not in gw.process.output()


def test_no_request_fails_while_instances_are_exchanged(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    gw = gateway(running, {"web": one.port})
    seen: set[str] = set()
    for turn in range(10):
        expected = ("two", "one")[turn % 2]
        gw.serve("web", (two, one)[turn % 2].port)
        assert wait_until(lambda: seen.update(now := answers(gw, 5)) or now == {expected}, SECONDS)  # noqa: B023
    assert seen == {"one", "two"}


def test_a_bad_line_is_logged_with_its_place_and_the_good_ones_stay(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    gw = gateway(running, {"web": one.port})
    assert answers(gw) == {"one"}
    (gw.root / "web").write_text(f"{LOOPBACK} {one.port}\nnonsense\n{LOOPBACK} {two.port}  # fine\n{LOOPBACK} 99999\n")
    becomes(gw, "one", "two")
    for line in (2, 4):
        assert gw.process.says(f"{gw.root / 'web'}:{line}: malformed address")


def test_a_file_of_nothing_but_bad_lines_keeps_the_last_good_instances(running: Running) -> None:
    one = named(running, "one")
    gw = gateway(running, {"web": one.port})
    assert answers(gw) == {"one"}
    (gw.root / "web").write_text("broken\n")
    assert wait_until(lambda: "web:1: malformed address" in gw.process.output(), SECONDS)
    assert answers(gw) == {"one"}
    assert b"malformed" in gw.admin("/client_state.json").body


def test_a_removed_name_is_a_502_that_explains_and_comes_back(running: Running) -> None:
    one = named(running, "one")
    gw = gateway(running, {"web": one.port})
    assert answers(gw) == {"one"}
    (gw.root / "web").unlink()
    assert wait_until(lambda: gw.get("web").status == 502, SECONDS)
    text = gw.get("web").text
    assert text.startswith("Unable to route request!\n\nservice name: /svc/web\n")
    assert "/#/io.l5d.fs/web" in text, "the resolution is explained"
    gw.serve("web", one.port)
    becomes(gw, "one")


def test_a_name_that_appears_later_is_found(running: Running) -> None:
    one = named(running, "one")
    gw = gateway(running)
    assert gw.get("web").status == 502
    gw.serve("web", one.port)
    assert wait_until(lambda: gw.get("web").status == 200, SECONDS)


def test_an_alternative_takes_over_when_a_name_vanishes(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    dtab = "/svc => /#/io.l5d.fs/second ; /svc/web => /#/io.l5d.fs/first | /#/io.l5d.fs/second"
    gw = gateway(running, {"first": one.port, "second": two.port}, router={"dtab": dtab})
    assert answers(gw) == {"one"}
    (gw.root / "first").unlink()
    becomes(gw, "two")
    gw.serve("first", one.port)
    becomes(gw, "one")


def test_weights_of_a_union_split_requests(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    dtab = "/svc => 0.8 * /#/io.l5d.fs/first & 0.2 * /#/io.l5d.fs/second"
    gw = gateway(running, {"first": one.port, "second": two.port}, router={"dtab": dtab})
    share = sum(gw.get("web").text == "one" for _ in range(200)) / 200
    assert 0.6 <= share <= 0.96, share


def test_the_dtab_file_is_reread_and_a_bad_edit_leaves_the_last_good_one(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    file = running.directory / "dtab"
    file.write_text("/svc => /#/io.l5d.fs/first\n")
    router = {"interpreter": {"kind": "io.l5d.fs", "dtabFile": str(file)}, "dtab": ""}
    gw = gateway(running, {"first": one.port, "second": two.port}, router=router)
    becomes(gw, "one")
    file.write_text("# the other one\n/svc => /#/io.l5d.fs/second ;\n")
    becomes(gw, "two")
    file.write_text("/svc => /#/io.l5d.fs/first ;\n/svc -> /wrong\n")
    assert wait_until(lambda: f"{file}:2:" in gw.process.output(), SECONDS), gw.process.output()
    assert gw.process.says("the last good dtab stays in use")
    assert answers(gw) == {"two"}
    fresh = file.with_name("dtab.new")
    fresh.write_text("/svc => /#/io.l5d.fs/first\n")
    fresh.rename(file)
    becomes(gw, "one")
    file.unlink()
    assert wait_until(lambda: "the dtab file does not exist" in gw.process.output(), SECONDS)
    assert answers(gw) == {"one"}


def test_the_routers_dtab_prevails_over_that_of_the_file(running: Running) -> None:
    one, two = named(running, "one"), named(running, "two")
    file = running.directory / "dtab"
    file.write_text("/svc => /#/io.l5d.fs/first ; /svc/web => /#/io.l5d.fs/first\n")
    router = {"interpreter": {"kind": "io.l5d.fs", "dtabFile": str(file)}, "dtab": "/svc => /#/io.l5d.fs/second"}
    gw = gateway(running, {"first": one.port, "second": two.port}, router=router)
    becomes(gw, "two")
