"""The modules behind the figures: how they are written, and what is made of counters, called in the browser as pages call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from support.dashboard import Mesh

pytestmark = pytest.mark.integration

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def page(browser: Browser, mesh: Mesh) -> Page:
    page = browser.new_page()
    page.goto(f"{mesh.url}/help")
    return page


def run(page: Page, module: str, code: str, *values: object) -> Any:
    """What the function body ``code`` returns, in which ``m`` is the module and ``v`` are the values."""
    return page.evaluate(f"async ([path, v]) => {{ const m = await import(path); {code} }}", [f"/admin/files/{module}.js", list(values)])


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("short", None, "–"),
        ("short", 0, "0"),
        ("short", 0.004, "0"),
        ("short", 0.25, "0.25"),
        ("short", 7, "7"),
        ("short", 7.126, "7.13"),
        ("short", 99.96, "100.0"),
        ("short", 240.4, "240"),
        ("short", 999.6, "1.00k"),
        ("short", 12_345, "12.3k"),
        ("short", 999_600, "1.00M"),
        ("short", 2.5e9, "2.50G"),
        ("whole", 1_234_567, "1\u202f234\u202f567"),
        ("whole", 999, "999"),
        ("percent", None, "–"),
        ("percent", 0, "0 %"),
        ("percent", 1, "100 %"),
        ("percent", 0.999999, "> 99.99 %"),
        ("percent", 0.000001, "< 0.01 %"),
        ("percent", 0.99987, "99.98 %"),
        ("percent", 0.9946, "99.46 %"),
        ("percent", 0.2, "20 %"),
        ("percent", 0.1234, "12.3 %"),
        ("percent", 0.0123, "1.23 %"),
        ("milliseconds", 0.35, "0.35 ms"),
        ("milliseconds", 12, "12.0 ms"),
        ("milliseconds", 167.4, "167 ms"),
        ("milliseconds", 999.7, "1.00 s"),
        ("milliseconds", 75_000, "1.3 min"),
        ("milliseconds", None, "–"),
        ("duration", 59_999, "59 s"),
        ("duration", 60_000, "1 min"),
        ("duration", 3_600_000, "1 h"),
        ("duration", 11_520_000, "3 h 12 min"),
        ("duration", 273_600_000, "3 d 4 h"),
        ("bytes", 512, "512 B"),
        ("bytes", 68_000_000, "64.8 MiB"),
        ("axisEnd", 0, 1),
        ("axisEnd", 2.2, 2.5),
        ("axisEnd", 10, 10),
        ("axisEnd", 63, 100),
        ("axisEnd", 0.03, 0.05),
        ("health", None, "idle"),
        ("health", 0.99, "good"),
        ("health", 0.98, "warn"),
        ("health", 0.9, "bad"),
    ],
)
def test_a_figure_is_written_as_people_read_it(page: Page, function: str, value: float | None, text: str | float) -> None:
    found = run(page, "figures", "return m[v[0]](v[1]);", function, value)
    assert found == pytest.approx(text) if isinstance(text, float) else found == text


READ = """
const history = new m.History(v[0]);
for (const [time, requests, success, failures] of v[1]) history.add(time, { requests, success, failures, retries: 0 });
"""


def test_a_rate_is_that_of_the_window_and_not_of_the_time_before(page: Page) -> None:
    readings = [[0, 1000, 1000, 0], [10_000, 1000, 1000, 0], [15_000, 1050, 1040, 10], [20_000, 1100, 1080, 20]]
    rate, share, whole = run(
        page,
        "history",
        READ + "return [history.rate('requests', 10000), history.successShare(10000), history.rate('requests', 60000)];",
        10,
        readings,
    )
    assert (rate, share, whole) == (10, 0.8, 5)


def test_a_single_reading_has_no_rate(page: Page) -> None:
    assert run(page, "history", READ + "return [history.rate('requests', 1000), history.successShare(1000)];", 4, [[0, 5, 5, 0]]) == [
        None,
        None,
    ]


def test_a_counter_that_begins_anew_adds_nothing_and_breaks_the_line(page: Page) -> None:
    readings = [[0, 500, 500, 0], [1000, 510, 510, 0], [2000, 3, 3, 0], [3000, 8, 8, 0]]
    over, rates = run(
        page, "history", READ + "return [history.over(3000).requests, history.rates('requests').map(p => p.value)];", 10, readings
    )
    assert (over, rates) == (15, [10, None, 5])


def test_a_history_forgets_what_is_older_than_its_room(page: Page) -> None:
    readings = [[1000 * second, 10 * second, 0, 0] for second in range(50)]
    found = run(
        page,
        "history",
        READ + "return [history.length, history.time(0), history.over(1e9).requests, history.rates('requests').length];",
        8,
        readings,
    )
    assert found == [8, 42_000, 70, 7]


def node(requests: int, *, failures: int = 0, **more: Any) -> Tree:
    counters = {"requests": requests, "success": requests - failures, "failures": failures}
    return {**{name: {"counter": count} for name, count in counters.items()}, **more}


def tree(requests: int, **clients: Tree) -> Tree:
    server = {"127.0.0.1/4140": node(requests, pending={"gauge": 2.0}, connections={"gauge": 3.0})}
    return {"rt": {"web": {"server": server, "client": clients, "service": {}}}, "jvm": {}}


TAKE = """
const model = new m.Model(["web"]);
v[0].forEach((tree, second) => model.take(1000 * second, tree));
const router = model.routers.get("web");
"""


def test_retries_of_a_client_that_has_gone_are_not_taken_back(page: Page) -> None:
    requeued = node(10, retries={"requeues": {"counter": 6}})
    trees = [tree(0, a=node(0)), tree(10, a=requeued), tree(20), tree(20, b=node(5, retries={"requeues": {"counter": 2}}))]
    assert run(page, "model", TAKE + "return [router.history.over(1e6).retries, [...router.parts.client.keys()]];", trees) == [8, ["b"]]


def test_a_part_that_comes_later_began_at_nothing(page: Page) -> None:
    found = run(page, "model", TAKE + "return router.parts.client.get('late').rate;", [tree(0), tree(1), tree(2, late=node(40))])
    assert found == 40


def test_a_router_that_is_no_longer_served_is_forgotten_though_it_has_counters(page: Page) -> None:
    both = {"rt": {"web": tree(1)["rt"]["web"], "gone": tree(5)["rt"]["web"]}}
    code = """
    const model = new m.Model(["web"]);
    const seen = [[], []];
    model.take(0, v[0]);
    seen[0] = [...model.routers.keys()];
    model.serve(["web"]);
    model.take(1000, v[0]);
    seen[1] = [...model.routers.keys()];
    return seen;
    """
    assert run(page, "model", code, both) == [["web", "gone"], ["web"]]


def test_what_was_counted_before_the_page_was_opened_is_no_rate(page: Page) -> None:
    assert run(page, "model", TAKE + "return [router.rate, router.parts.client.get('a').rate];", [tree(10**6, a=node(10**6))] * 2) == [0, 0]


def test_a_gateway_that_begins_anew_is_no_peak(page: Page) -> None:
    trees = [tree(5000, a=node(5000)), tree(5010, a=node(5010)), tree(3), tree(9, a=node(4))]
    rates = run(page, "model", TAKE + "return router.history.rates('requests').map(p => p.value);", trees)
    assert rates == [10, None, 6]


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ([None], None),
        ([{"stat.count": 0}], {"count": 0}),
        ([{"stat.count": 0}, {"stat.count": 4, "stat.p99": 7}], {"count": 4, "p99": 7}),
        (
            [{"stat.count": 4, "stat.p99": 7, "stat.max": 9}, {"stat.count": 6, "stat.p99": 8, "stat.max": 8}],
            {"count": 10, "p99": 8, "max": 9},
        ),
    ],
)
def test_the_latency_of_several_servers_is_that_of_the_worst(page: Page, stats: list[Tree | None], expected: Tree | None) -> None:
    servers = {f"127.0.0.1/{port}": node(1, **({"request_latency_ms": stat} if stat else {})) for port, stat in enumerate(stats)}
    found = run(page, "model", TAKE + "return router.latency;", [{"rt": {"web": {"server": servers}}}])
    assert found == expected if expected is None else {name: found[name] for name in expected} == expected


def test_names_of_parts_are_written_as_in_the_configuration(page: Page) -> None:
    code = "return v.map(([kind, id]) => new m.Part('web', kind, id, false).name);"
    found = run(
        page, "model", code, ["server", "127.0.0.1/4140"], ["server", "::1/4140"], ["client", "#/io.l5d.fs/web"], ["service", "svc/web"]
    )
    assert found == ["127.0.0.1:4140", "::1:4140", "/#/io.l5d.fs/web", "/svc/web"]


@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ({}, 0.2),
        ({"service": {"retries": {"budget": {"percentCanRetry": 0.5}}}}, 0.5),
        ({"service": {"retries": {"budget": {"percentCanRetry": 0}}}}, 0),
        ({"service": {"kind": "io.l5d.static", "configs": []}}, None),
    ],
)
def test_the_allowed_retries_are_those_of_the_configuration(page: Page, router: Tree, expected: float | None) -> None:
    assert run(page, "model", "return m.allowedRetries(v[0]);", router) == expected


def test_rows_without_a_figure_come_last_in_either_direction(page: Page) -> None:
    code = "return [true, false].map(down => v[0].toSorted((one, other) => m.compared(one, other, down)).map(row => row.key));"
    rows = [{"key": "a", "value": None}, {"key": "b", "value": 1}, {"key": "c", "value": 2}, {"key": "d", "value": 1}]
    assert run(page, "table", code, rows) == [["c", "b", "d", "a"], ["b", "d", "c", "a"]]


def test_a_line_is_broken_where_there_is_no_value(page: Page) -> None:
    points = [{"time": time, "value": value} for time, value in ((0, 1), (1, 2), (2, None), (3, 4))]
    assert run(page, "chart", "return m.linePath(v[0], t => t, y => y);", points) == "M0.0 1.0L1.0 2.0M3.0 4.0"
