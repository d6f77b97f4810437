"""Lists and watches of the Kubernetes API server, against a scripted one in memory: what servers do rarely, and clients get wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from fakes.kubernetes import Server, endpoints, status
from fakes.kubernetes_agent import Cluster, Seen
from meshgw.backends.kubernetes import ENDPOINTS, NO_OBJECTS, SECRETS, Objects, Wanted
from meshgw.backends.kubernetes_watch import HEARTBEAT_SECONDS, MARGIN_SECONDS, WATCH_SECONDS
from meshgw.core.live import Failed, Ok, Pending

WEB = Wanted(ENDPOINTS, "default", "web")
ALL = Wanted(ENDPOINTS, "default")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as made:
        yield made


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is not None and event["log_level"].name in ("warn", "error", "critical"):
            lines.append(event.get("log_format", "").format(**{key: each for key, each in event.items() if not key.startswith("log_")}))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def names(objects: Objects) -> list[str]:
    return [name for _, name in objects]


def ips(objects: Objects) -> list[str]:
    return [each["ip"] for value in objects.values() for subset in value["subsets"] for each in subset.get("addresses", [])]


def put(server: Server, *addresses: str, name: str = "web") -> None:
    server.put("endpoints", endpoints(name, *addresses))


# --- the plain course


def test_objects_are_listed_then_watched_from_the_lists_version(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    put(cluster.server, "10.0.1.1", name="other")
    seen = Seen(cluster.api.objects(WEB))
    assert ips(seen.value) == ["10.0.0.1"]
    listed, watched = cluster.server.asked
    assert (listed.path, listed.query) == ("/api/v1/namespaces/default/endpoints", {"fieldSelector": "metadata.name=web", "limit": "200"})
    assert watched.query["resourceVersion"] == "1002"
    assert WATCH_SECONDS[0] <= int(watched.query["timeoutSeconds"]) <= WATCH_SECONDS[1]
    assert watched.query["allowWatchBookmarks"] == watched.query["watch"] == "true"


def test_what_is_added_changed_and_deleted_is_told_at_once(cluster: Cluster) -> None:
    seen = Seen(cluster.api.objects(ALL))
    assert seen.value == NO_OBJECTS
    put(cluster.server, "10.0.0.1")
    assert ips(seen.value) == ["10.0.0.1"]
    put(cluster.server, "10.0.0.1", "10.0.0.2")
    put(cluster.server, "10.9.9.9", name="another")
    assert names(seen.value) == ["another", "web"]
    cluster.server.delete("endpoints", "web")
    assert names(seen.value) == ["another"]
    assert cluster.server.count("list", "endpoints") == 1


def test_an_object_that_does_not_exist_yet_is_no_error(cluster: Cluster) -> None:
    seen = Seen(cluster.api.objects(WEB))
    assert seen.states == [Pending("Kubernetes at localhost:8001: endpoints default/web"), Ok(NO_OBJECTS)] or seen.last == Ok(NO_OBJECTS)
    put(cluster.server, "10.0.0.1")
    assert ips(seen.value) == ["10.0.0.1"]


def test_a_selector_of_labels_adds_what_begins_to_match_and_drops_what_ceases_to(cluster: Cluster) -> None:
    seen = Seen(cluster.api.objects(Wanted(ENDPOINTS, "default", labels="app=web")))
    cluster.server.put("endpoints", endpoints("a", "10.0.0.1", labels={"app": "web"}))
    assert names(seen.value) == ["a"]
    cluster.server.put("endpoints", endpoints("a", "10.0.0.1", labels={"app": "other"}))
    assert names(seen.value) == []


def test_several_observers_share_one_watch(cluster: Cluster) -> None:
    first, second = Seen(cluster.api.objects(WEB)), Seen(cluster.api.objects(WEB))
    put(cluster.server, "10.0.0.1")
    assert ips(first.value) == ips(second.value) == ["10.0.0.1"]
    assert len(cluster.server.streams) == 1


def test_a_watch_ends_a_minute_after_its_last_observer(cluster: Cluster) -> None:
    seen = Seen(cluster.api.objects(WEB))
    seen.close()
    cluster.pass_time(50.0)
    assert len(cluster.server.streams) == 1
    cluster.pass_time(11.0)
    assert not cluster.server.streams


def test_long_lists_come_in_pages(cluster: Cluster) -> None:
    for number in range(450):
        put(cluster.server, "10.0.0.1", name=f"n{number:03}")
    seen = Seen(cluster.api.objects(ALL))
    assert len(seen.value) == 450
    assert cluster.server.count("list", "endpoints") == 3


def test_a_page_that_expired_makes_the_list_begin_anew_without_pages(cluster: Cluster) -> None:
    for number in range(250):
        put(cluster.server, "10.0.0.1", name=f"n{number:03}")
    cluster.server.delay = 1.0
    seen = Seen(cluster.api.objects(ALL))
    cluster.clock.advance(1.0)
    cluster.server.compact()
    cluster.pass_time(3.0)
    assert len(seen.value) == 250
    assert "limit" not in [asked for asked in cluster.server.asked if not asked.is_watch][-1].query


def test_a_thousand_objects_that_change_together_are_told_in_few_steps(cluster: Cluster) -> None:
    cluster.server.split = 1 << 20
    seen = Seen(cluster.api.objects(ALL))
    stream = next(iter(cluster.server.streams))
    told = len(seen.states)
    lines = []
    for number in range(1000):
        value = endpoints(f"n{number}", "10.0.0.1")
        value["metadata"] |= {"resourceVersion": str(2000 + number)}
        lines.append(json.dumps({"type": "ADDED", "object": value}))
    stream.send(("\n".join(lines) + "\n").encode())
    assert len(seen.value) == 1000
    assert len(seen.states) - told <= 3


# --- what does not matter


def test_leader_elections_and_managed_fields_are_not_announced(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    told, updates = len(seen.states), cluster.counted("updates")
    for turn in range(20):
        annotations = {"control-plane.alpha.kubernetes.io/leader": json.dumps({"renewTime": turn})}
        value = endpoints("web", "10.0.0.1", annotations=annotations, managedFields=[{"time": turn}])
        cluster.server.put("endpoints", value)
    assert len(seen.states) - told <= 1, "the annotations' first coming may be told, their changes not"
    assert cluster.counted("updates") - updates <= 1
    assert cluster.api.describe()["watches"]["endpoints default/web"]["poll"]["ignoredEvents"] >= 19


def test_a_watch_goes_on_from_the_version_of_an_event_that_changed_nothing(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    Seen(cluster.api.objects(WEB))
    put(cluster.server, "10.0.0.1")
    version = cluster.server.version
    cluster.server.end_watches()
    cluster.pass_time(1.0)
    assert cluster.server.asked[-1].query["resourceVersion"] == str(version)


def test_events_of_unknown_types_are_passed_over(cluster: Cluster) -> None:
    seen = Seen(cluster.api.objects(WEB))
    value = endpoints("web", "10.0.0.1")
    cluster.server.garbage(json.dumps({"type": "TELEPORTED", "object": value}) + "\n")
    cluster.server.garbage("\n")
    put(cluster.server, "10.0.0.2")
    assert ips(seen.value) == ["10.0.0.2"]
    assert cluster.server.count("list", "endpoints") == 1


def test_events_may_be_cut_anywhere(cluster: Cluster) -> None:
    cluster.server.split = 1
    seen = Seen(cluster.api.objects(WEB))
    for number in range(1, 4):
        put(cluster.server, f"10.0.0.{number}", "2001:db8::1")
    assert ips(seen.value) == ["10.0.0.3", "2001:db8::1"]


# --- how watches end


def test_a_watch_that_ended_in_time_goes_on_from_the_last_version_without_a_list(cluster: Cluster) -> None:
    cluster.server.bookmark_seconds = 60.0
    seen = Seen(cluster.api.objects(WEB))
    cluster.pass_time(1300.0, step=1.0)
    assert cluster.server.count("watch", "endpoints") >= 3
    assert cluster.server.count("list", "endpoints") == 1
    put(cluster.server, "10.0.0.1")
    assert ips(seen.value) == ["10.0.0.1"]
    assert cluster.counted("errors") == 0


def test_what_happened_between_two_watches_is_seen_by_the_second(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.end_watches()
    put(cluster.server, "10.0.0.2")
    cluster.server.delete("endpoints", "web")
    cluster.pass_time(1.0)
    assert seen.value == NO_OBJECTS
    assert cluster.server.count("list", "endpoints") == 1


@pytest.mark.parametrize("told", ["status", "event", "object"])
def test_a_version_that_is_too_old_is_answered_by_a_list(cluster: Cluster, told: str) -> None:
    """In the status, in an event, or as a bare Status: the last two once broke many clients."""
    cluster.server.expired = told
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.end_watches()
    put(cluster.server, "10.0.0.2")
    cluster.server.compact()
    cluster.pass_time(2.0)
    assert ips(seen.value) == ["10.0.0.2"]
    assert not seen.error
    assert cluster.counted("errors") == 0, "this is how it is meant to work"
    put(cluster.server, "10.0.0.3")
    assert ips(seen.value) == ["10.0.0.3"]


@pytest.mark.parametrize("told", ["status", "event", "object"])
def test_a_server_that_calls_every_version_too_old_is_not_asked_without_pause(cluster: Cluster, told: str) -> None:
    cluster.server.expired = told
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.oldest = 10**9
    cluster.server.end_watches()
    cluster.pass_time(60.0)
    assert cluster.server.count("watch", "endpoints") < 60
    put(cluster.server, "10.0.0.1")
    cluster.pass_time(6.0)
    assert ips(seen.value) == ["10.0.0.1"], "although it never watches, it is followed"


def test_what_was_deleted_while_nobody_watched_is_gone_after_the_list(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    put(cluster.server, "10.0.0.2", name="other")
    seen = Seen(cluster.api.objects(ALL))
    cluster.agent.is_down = True
    cluster.server.end_watches(properly=False)
    cluster.server.delete("endpoints", "web")
    cluster.server.compact()
    cluster.pass_time(5.0)
    assert names(seen.value) == ["other", "web"], "stale meanwhile"
    assert "connection refused" in seen.error
    cluster.agent.is_down = False
    cluster.pass_time(6.0)
    assert names(seen.value) == ["other"]
    assert not seen.error


def test_an_error_event_makes_the_list_be_asked_anew_and_keeps_the_last_state(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.error_event(500, "InternalError", "etcd is unhappy")
    assert ips(seen.value) == ["10.0.0.1"]
    assert "500 (etcd is unhappy)" in seen.error
    cluster.pass_time(2.0)
    assert not seen.error
    assert cluster.server.count("list", "endpoints") == 2


def test_a_404_at_the_start_of_a_watch_does_not_end_it(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    cluster.server.fail("watch", "endpoints", count=3, status=404, body="404 page not found")
    seen = Seen(cluster.api.objects(WEB))
    cluster.pass_time(5.0)
    put(cluster.server, "10.0.0.2")
    assert ips(seen.value) == ["10.0.0.2"]


@pytest.mark.parametrize(
    "line", ["no JSON\n", '{"type": "MODI\n', "[]\n", '{"type": "ADDED"}\n', '{"type": "ADDED", "object": {"metadata": {}}}\n', "42\n"]
)
def test_a_malformed_line_ends_the_watch_and_it_is_made_anew(cluster: Cluster, line: str) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.garbage(line)
    assert ips(seen.value) == ["10.0.0.1"]
    assert "it answered with" in seen.error
    put(cluster.server, "10.0.0.2")
    cluster.pass_time(10.0)
    assert ips(seen.value) == ["10.0.0.2"]
    assert not seen.error


def test_streams_that_break_off_or_end_at_once_are_not_made_anew_without_pause(cluster: Cluster) -> None:
    Seen(cluster.api.objects(WEB))
    for _ in range(600):
        cluster.server.end_watches()
        cluster.clock.advance(0.1)
    assert cluster.server.count("watch", "endpoints") < 60


def test_a_silent_watch_is_ended_after_its_time_and_a_margin(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    cluster.server.ignores_timeouts = True
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.silence()
    put(cluster.server, "10.0.0.2")
    cluster.pass_time(WATCH_SECONDS[1] + MARGIN_SECONDS + 1.0, step=1.0)
    cluster.pass_time(2.0)
    assert ips(seen.value) == ["10.0.0.2"]


def test_a_watch_that_had_bookmarks_is_missed_soon_when_they_cease(cluster: Cluster) -> None:
    cluster.server.bookmark_seconds = 60.0
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.pass_time(61.0, step=1.0)
    cluster.server.silence()
    put(cluster.server, "10.0.0.2")
    cluster.pass_time(HEARTBEAT_SECONDS + 1.0, step=1.0)
    cluster.pass_time(2.0)
    assert ips(seen.value) == ["10.0.0.2"]


def test_versions_that_went_back_are_noticed_by_a_list_after_a_watch_without_a_word(cluster: Cluster) -> None:
    """As after a restore of etcd: the server sends nothing newer than what we claim to know."""
    for _ in range(50):
        put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.restore(10)
    put(cluster.server, "10.0.0.2")
    cluster.pass_time(2.0)
    assert ips(seen.value) == ["10.0.0.1"], "it cannot be known yet"
    cluster.pass_time(WATCH_SECONDS[1] + 2.0, step=1.0)
    assert ips(seen.value) == ["10.0.0.2"]


def test_versions_that_went_back_are_noticed_by_a_bookmark(cluster: Cluster) -> None:
    cluster.server.bookmark_seconds = 60.0
    for _ in range(50):
        put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.restore(10)
    put(cluster.server, "10.0.0.2")
    cluster.pass_time(62.0, step=1.0)
    assert ips(seen.value) == ["10.0.0.2"]
    assert cluster.counted("errors") == 1, "that of the broken connection"


def test_a_bookmark_moves_the_version_on(cluster: Cluster) -> None:
    Seen(cluster.api.objects(WEB))
    put(cluster.server, "10.0.1.1", name="other")
    cluster.server.bookmarks()
    cluster.server.end_watches()
    cluster.server.compact()
    cluster.server.oldest = cluster.server.version - 1
    cluster.pass_time(1.0)
    assert cluster.server.count("list", "endpoints") == 1, "the bookmark's version was new enough"


# --- outages


def test_a_server_that_is_down_at_first_is_asked_until_it_is_there(cluster: Cluster, logged: list[str]) -> None:
    cluster.agent.is_down = True
    seen = Seen(cluster.api.objects(WEB))
    cluster.pass_time(30.0)
    assert isinstance(seen.last, Pending)
    assert "connection refused" in seen.last.waiting_for
    put(cluster.server, "10.0.0.1")
    cluster.agent.is_down = False
    cluster.pass_time(6.0)
    assert ips(seen.value) == ["10.0.0.1"]
    assert len([line for line in logged if "connection refused" in line]) == 1, "once for an outage"


def test_an_outage_keeps_the_last_good_objects_and_says_how_old_they_are(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.agent.is_down = True
    cluster.server.end_watches(properly=False)
    cluster.pass_time(60.0)
    assert ips(seen.value) == ["10.0.0.1"]
    described = cluster.api.describe()["watches"]["endpoints default/web"]
    assert described["state"]["stale"] is True
    assert described["state"]["ageSeconds"] > 55
    assert "connection refused" in described["poll"]["error"]
    assert cluster.counted("stale") == 1


def test_after_an_outage_the_watch_goes_on_from_the_last_version(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.agent.is_down = True
    cluster.server.end_watches(properly=False)
    put(cluster.server, "10.0.0.2")
    cluster.pass_time(20.0)
    cluster.agent.is_down = False
    cluster.pass_time(6.0)
    assert ips(seen.value) == ["10.0.0.2"]
    assert cluster.server.count("list", "endpoints") == 1


def test_an_outage_in_which_nothing_changed_is_over_when_the_watch_is_open_again(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.agent.is_down = True
    cluster.server.end_watches(properly=False)
    cluster.pass_time(20.0)
    assert seen.error
    cluster.agent.is_down = False
    cluster.pass_time(6.0)
    assert not seen.error
    assert cluster.server.count("list", "endpoints") == 1


def test_a_slow_server_is_waited_for_within_a_bound(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    cluster.server.delay = 20.0
    seen = Seen(cluster.api.objects(WEB))
    cluster.pass_time(21.0)
    assert ips(seen.value) == ["10.0.0.1"]
    other = Seen(cluster.api.objects(ALL))
    cluster.server.delay = 300.0
    cluster.pass_time(60.0, step=1.0)
    assert isinstance(other.last, Pending | Ok)
    third = Seen(cluster.api.objects(Wanted(ENDPOINTS, "elsewhere")))
    cluster.pass_time(31.0, step=1.0)
    assert isinstance(third.last, Pending)
    assert "no complete answer within 30 s" in third.last.waiting_for


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, "not JSON"),
        (200, "[1, 2]"),
        (200, '{"items": 7, "metadata": {"resourceVersion": "1"}}'),
        (200, '{"items": [{"spec": {}}], "metadata": {"resourceVersion": "1"}}'),
        (200, '{"items": []}'),
        (200, "[" * 100_000),
        (200, json.dumps(status(500, "InternalError", "no"))),
        (500, json.dumps(status(500, "InternalError", "no"))),
        (503, "<html>a proxy's page</html>"),
        (429, ""),
    ],
)
def test_an_unusable_list_is_an_error_and_is_asked_for_anew(cluster: Cluster, code: int, body: str) -> None:
    put(cluster.server, "10.0.0.1")
    cluster.server.fail("list", "endpoints", status=code, body=body)
    seen = Seen(cluster.api.objects(WEB))
    assert isinstance(seen.last, Pending | Failed)
    cluster.pass_time(4.0)
    assert ips(seen.value) == ["10.0.0.1"]
    assert cluster.counted("errors") == 1


# --- rights


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_missing_right_is_named(cluster: Cluster, verb: str) -> None:
    cluster.server.forbidden.add((verb, "endpoints", "default"))
    seen = Seen(cluster.api.objects(WEB))
    told = f"may not {verb} endpoints in namespace default: grant verb '{verb}' on resource 'endpoints' by a Role in namespace default"
    assert told in seen.error
    assert 'User "system:serviceaccount:mesh:meshgw"' in seen.error, "who was not allowed is told too"


def test_a_missing_right_in_all_namespaces_asks_for_a_cluster_role(cluster: Cluster) -> None:
    cluster.server.forbidden.add(("*", "secrets", "*"))
    seen = Seen(cluster.api.objects(Wanted(SECRETS, None)))
    assert isinstance(seen.last, Failed)
    assert "may not list secrets in all namespaces: grant verb 'list' on resource 'secrets' by a ClusterRole" in str(seen.last.error)


def test_a_right_that_is_granted_later_is_noticed(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    cluster.server.forbidden.add(("list", "endpoints", "*"))
    seen = Seen(cluster.api.objects(WEB))
    cluster.pass_time(300.0, step=1.0)
    assert cluster.server.count("list", "endpoints") < 60, "it is not likely to go away by itself, so it is asked for seldom"
    cluster.server.forbidden.clear()
    cluster.pass_time(31.0)
    assert ips(seen.value) == ["10.0.0.1"]


def test_a_right_that_is_withdrawn_keeps_the_last_good_objects(cluster: Cluster) -> None:
    put(cluster.server, "10.0.0.1")
    seen = Seen(cluster.api.objects(WEB))
    cluster.server.forbidden.add(("*", "endpoints", "*"))
    cluster.server.end_watches()
    cluster.pass_time(5.0)
    assert ips(seen.value) == ["10.0.0.1"]
    assert "403: may not" in seen.error


def test_who_may_list_but_not_watch_is_told_of_changes_now_and_then(cluster: Cluster) -> None:
    cluster.server.forbidden.add(("watch", "endpoints", "*"))
    seen = Seen(cluster.api.objects(WEB))
    put(cluster.server, "10.0.0.1")
    cluster.pass_time(31.0)
    assert ips(seen.value) == ["10.0.0.1"]
    assert "grant verb 'watch'" in seen.error


def test_a_resource_that_is_not_served_is_named(cluster: Cluster) -> None:
    cluster.server.apis["v1"] = ("services",)
    seen = Seen(cluster.api.objects(WEB))
    assert "404: it does not serve v1 endpoints" in seen.error


def test_what_admin_shows_of_secrets_is_their_names(cluster: Cluster) -> None:
    cluster.server.put("secrets", {"metadata": {"name": "tls", "namespace": "default"}, "data": {"tls.key": "aGlkZGVu"}})
    Seen(cluster.api.objects(Wanted(SECRETS, "default")))
    described = json.dumps(cluster.api.describe())
    assert "default/tls" in described
    assert "aGlkZGVu" not in described


def test_stopping_ends_all_watches(cluster: Cluster) -> None:
    Seen(cluster.api.objects(WEB))
    Seen(cluster.api.objects(ALL))
    cluster.api.stopService()
    assert not cluster.server.streams
    assert not cluster.clock.getDelayedCalls()
