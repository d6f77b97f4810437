"""How many questions the client of the API server has under way, whatever names callers invent and however slow the server is."""

from __future__ import annotations

from fakes.kubernetes import endpoints
from fakes.kubernetes_agent import Cluster, Seen
from meshgw.backends.kubernetes import ENDPOINTS, NO_OBJECTS, Objects, Wanted
from meshgw.backends.kubernetes_watch import LIST_SECONDS, MOST_LISTS, MOST_POLLS, TURNLESS_ABSENT_SECONDS, TURNLESS_SECONDS
from meshgw.core.live import Ok, Pending


def look(cluster: Cluster, name: str) -> Seen[Objects]:
    return Seen(cluster.api.objects(Wanted(ENDPOINTS, "default", name)))


def put(cluster: Cluster, *names: str, ip: str = "10.0.0.1") -> None:
    for name in names:
        cluster.server.put("endpoints", endpoints(name, ip))


def test_names_that_lead_to_no_object_hold_a_quarter_of_the_watches_and_are_found_all_the_same() -> None:
    with Cluster(most_watched=8) as cluster:
        invented = [look(cluster, f"scan{number}") for number in range(20)]
        assert [seen.value for seen in invented] == [NO_OBJECTS] * 20
        assert len(cluster.server.streams) == 2
        put(cluster, "web", "scan0", "scan19")
        found = look(cluster, "web")
        assert len(found.value) == 1
        assert len(cluster.server.streams) == 3
        assert len(invented[0].value) == 1  # it has a watch
        cluster.pass_time(TURNLESS_ABSENT_SECONDS * 1.2 + 1.0)
        assert len(invented[19].value) == 1
        assert cluster.counted("watching") == len(cluster.server.streams) == 4


def test_objects_beyond_the_limit_are_listed_every_few_seconds_until_there_is_room() -> None:
    with Cluster(most_watched=2) as cluster:
        put(cluster, "a", "b", "c")
        watched, _other, listed = (look(cluster, name) for name in "abc")
        assert len(cluster.server.streams) == 2
        put(cluster, "c", ip="10.0.0.2")
        cluster.pass_time(TURNLESS_SECONDS * 1.2 + 1.0)
        assert [each["subsets"][0]["addresses"][0]["ip"] for each in listed.value.values()] == ["10.0.0.2"]
        watched.close()
        cluster.pass_time(61.0 + TURNLESS_SECONDS * 1.2)
        lists = cluster.server.count("list", "endpoints")
        put(cluster, "c", ip="10.0.0.3")
        assert [each["subsets"][0]["addresses"][0]["ip"] for each in listed.value.values()] == ["10.0.0.3"]
        assert cluster.server.count("list", "endpoints") == lists


def test_lists_of_what_is_not_watched_are_few_in_all_however_many_names_there_are() -> None:
    with Cluster(most_watched=0) as cluster:
        names = [f"n{number}" for number in range(200)]
        put(cluster, *names)
        assert all(look(cluster, name).value for name in names)
        cluster.pass_time(TURNLESS_SECONDS * 2, step=1.0)  # the first come back after the least of pauses
        before = cluster.server.count("list", "endpoints")
        cluster.pass_time(30.0, step=1.0)
        assert 30.0 * MOST_POLLS / 2 < cluster.server.count("list", "endpoints") - before < 30.0 * MOST_POLLS * 1.2


def test_a_whole_collection_is_watched_however_many_names_are() -> None:
    with Cluster(most_watched=0) as cluster:
        look(cluster, "web")
        assert not cluster.server.streams
        Seen(cluster.api.objects(Wanted(ENDPOINTS, None)))
        assert len(cluster.server.streams) == 1


def test_no_more_than_some_lists_are_under_way_while_the_server_is_slow() -> None:
    with Cluster() as cluster:
        cluster.server.delay = LIST_SECONDS * 3
        seen = [look(cluster, f"n{number}") for number in range(MOST_LISTS + 10)]
        assert len(cluster.agent.unanswered) == MOST_LISTS
        cluster.server.delay = 0.0
        cluster.pass_time(LIST_SECONDS + 6.0)
        assert not [each for each in seen if isinstance(each.last, Pending)]
        assert all(isinstance(each.last, Ok) for each in seen)
