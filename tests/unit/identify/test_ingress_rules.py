"""Rules of Kubernetes ingresses (linkerd-config spec 5.2; Kubernetes' documentation of Ingress)."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.identify.ingress_objects import Ingress, IngressClass, read_class, read_ingress
from meshgw.identify.ingress_rules import Claim, Ownership, RuleTable, host_of, path_of

Json = dict[str, Any]


def v1(service: str, port: int | str = 80) -> Json:
    """A backend as networking.k8s.io/v1 has it."""
    return {"service": {"name": service, "port": {"number": port} if isinstance(port, int) else {"name": port}}}


def old(service: str, port: int | str = 80) -> Json:
    """A backend as the two older versions have it."""
    return {"serviceName": service, "servicePort": port}


def rule(*paths: tuple[str, str, str] | Json, host: str | None = None) -> Json:
    """A rule with paths as (pathType, path, service), or as they are in an object."""
    made = [one if isinstance(one, dict) else {"pathType": one[0], "path": one[1], "backend": v1(one[2])} for one in paths]
    found: Json = {"http": {"paths": made}}
    return found | ({"host": host} if host is not None else {})


def ingress(name: str = "web", *rules: Json, namespace: str = "shop", created: str = "2020-01-01T00:00:00Z", **spec: Any) -> Ingress:
    item = {"metadata": {"creationTimestamp": created}, "spec": {"rules": list(rules), **spec}}
    return read_ingress(namespace, name, item)


def leads(table: RuleTable, path: str, host: str = "example.com") -> str:
    """The service, as the name has it; empty if there is none."""
    found = table.find(host, path)
    return "" if found is None else found.service


def problems(*ingresses: Ingress) -> list[str]:
    return [str(problem) for problem in RuleTable(ingresses).problems]


# --- path types: the examples of Kubernetes' documentation


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ([("Prefix", "/")], "/", "/"),
        ([("Prefix", "/")], "/any/path", "/"),
        ([("Exact", "/foo")], "/foo", "/foo"),
        ([("Exact", "/foo")], "/bar", ""),
        ([("Exact", "/foo")], "/foo/", ""),
        ([("Exact", "/foo/")], "/foo", ""),
        ([("Prefix", "/foo")], "/foo", "/foo"),
        ([("Prefix", "/foo")], "/foo/", "/foo"),
        ([("Prefix", "/foo/")], "/foo", "/foo/"),
        ([("Prefix", "/foo/")], "/foo/", "/foo/"),
        ([("Prefix", "/aaa/bb")], "/aaa/bbb", ""),
        ([("Prefix", "/aaa/bbb")], "/aaa/bbb", "/aaa/bbb"),
        ([("Prefix", "/aaa/bbb/")], "/aaa/bbb", "/aaa/bbb/"),
        ([("Prefix", "/aaa/bbb")], "/aaa/bbb/", "/aaa/bbb"),
        ([("Prefix", "/aaa/bbb")], "/aaa/bbb/ccc", "/aaa/bbb"),
        ([("Prefix", "/aaa/bbb")], "/aaa/bbbxyz", ""),
        ([("Prefix", "/"), ("Prefix", "/aaa")], "/aaa/ccc", "/aaa"),
        ([("Prefix", "/"), ("Prefix", "/aaa"), ("Prefix", "/aaa/bbb")], "/aaa/bbb", "/aaa/bbb"),
        ([("Prefix", "/"), ("Prefix", "/aaa"), ("Prefix", "/aaa/bbb")], "/ccc", "/"),
        ([("Prefix", "/aaa")], "/ccc", ""),
        ([("Prefix", "/foo"), ("Exact", "/foo")], "/foo", "exact"),
    ],
)
def test_paths_match_as_kubernetes_documents(rules: list[tuple[str, str]], path: str, expected: str) -> None:
    services = {f"s{number}": kind for number, kind in enumerate(rules)}
    found = leads(RuleTable([ingress("web", rule(*((kind, text, name) for name, (kind, text) in services.items())))]), path)
    kind, text = services.get(found, ("", ""))
    assert (kind.lower() if expected == "exact" else text) == expected


@given(st.lists(st.text("ab/", max_size=6).map(lambda text: f"/{text}"), max_size=6), st.text("ab/", max_size=12))
def test_of_several_prefixes_the_one_with_most_elements_wins(prefixes: list[str], rest: str) -> None:
    table = RuleTable([ingress("web", rule(*(("Prefix", prefix, f"s{number}") for number, prefix in enumerate(prefixes))))])
    path = f"/{rest}"
    fitting = [prefix.removesuffix("/") for prefix in prefixes if f"{path}/".startswith(f"{prefix.removesuffix('/')}/")]
    found = leads(table, path)
    assert (prefixes[int(found[1:])].removesuffix("/") if found else None) == (max(fitting, key=len) if fitting else None)


@pytest.mark.parametrize("kind", [None, "ImplementationSpecific"])
@pytest.mark.parametrize(
    ("expression", "path", "fits"),
    [
        ("/api/.*", "/api/v1", True),
        ("/api/.*", "/api", False),
        ("/api", "/api/v1", False),
        ("/(a|b)", "/b", True),
        ("", "/whatever", True),
        (None, "/whatever", True),
    ],
)
def test_without_another_path_type_a_path_is_a_regex_over_the_whole_path(
    kind: str | None, expression: str | None, path: str, fits: bool
) -> None:
    entry: Json = {"backend": old("web")}
    entry |= {} if expression is None else {"path": expression}
    entry |= {} if kind is None else {"pathType": kind}
    assert (leads(RuleTable([ingress("web", rule(entry))]), path) == "web") is fits


def test_an_exact_path_comes_before_a_regex_that_before_a_prefix_and_no_path_last() -> None:
    table = RuleTable(
        [
            ingress(
                "web",
                rule(
                    ("ImplementationSpecific", "", "rest"),
                    ("Prefix", "/a", "prefix"),
                    ("ImplementationSpecific", "/a/[b-d]", "regex"),
                    ("ImplementationSpecific", "/a/[bc]", "later"),
                    ("Exact", "/a/b", "exact"),
                ),
            )
        ]
    )
    assert [leads(table, path) for path in ("/a/b", "/a/c", "/a/x", "/x")] == ["exact", "regex", "prefix", "rest"]


# --- hosts: the examples of Kubernetes' documentation, and Linkerd's


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("*.foo.com", "bar.foo.com", True),
        ("*.foo.com", "baz.bar.foo.com", False),
        ("*.foo.com", "foo.com", False),
        ("*.foo.com", ".foo.com", False),
        ("foo.com", "foo.com", True),
        ("Foo.COM", "foo.com", True),
        ("foo.com", "bar.com", False),
        ("foo.com", "bar.foo.com", False),
        ("[::1]", "[::1]", True),
        ("", "anything", True),
        (None, "", True),
    ],
)
def test_hosts_match_exactly_or_by_a_wildcard_for_one_label(pattern: str | None, host: str, fits: bool) -> None:
    table = RuleTable([ingress("web", rule(("Prefix", "/", "web"), host=pattern))])
    assert not table.problems
    assert (leads(table, "/", host) == "web") is fits


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"Foo.com", "foo.com"),
        (b"foo.com:8080", "foo.com"),
        (b"foo.com.", "foo.com"),
        (b"foo.com.:80", "foo.com"),
        (b"192.0.2.1:80", "192.0.2.1"),
        (b"[::1]:80", "[::1]"),
        (b"[2001:DB8::1]", "[2001:db8::1]"),
        (b"[::1", ""),
        (b"", ""),
        (b"\xff\xfe", "ÿþ"),
    ],
)
def test_the_host_of_a_request_is_without_port_and_in_lower_case(authority: bytes, host: str) -> None:
    assert host_of(authority) == host


def test_the_path_of_a_request_is_without_query_and_as_it_came() -> None:
    assert path_of(b"/a%2Fb/../c?d=/e") == "/a%2Fb/../c"


def test_an_exact_host_comes_before_a_wildcard_and_that_before_any_host() -> None:
    for order in itertools.permutations(["", "*.foo.com", "a.foo.com"]):
        names = {"": "any", "*.foo.com": "wildcard", "a.foo.com": "exact"}
        table = RuleTable([ingress("web", *(rule(("Prefix", "/", names[host]), host=host) for host in order))])
        assert [leads(table, "/", host) for host in ("a.foo.com", "b.foo.com", "foo.com")] == ["exact", "wildcard", "any"]


def test_a_host_whose_paths_do_not_fit_falls_back_to_less_specific_hosts() -> None:
    table = RuleTable(
        [
            ingress(
                "web",
                rule(("Exact", "/a", "exact"), host="a.foo.com"),
                rule(("Prefix", "/b", "wildcard"), host="*.foo.com"),
                rule(("Prefix", "/c", "any")),
            )
        ]
    )
    assert [leads(table, path, "a.foo.com") for path in ("/a", "/b", "/c", "/d")] == ["exact", "wildcard", "any", ""]


# --- backends


@pytest.mark.parametrize(
    ("backend", "shown"),
    [
        (v1("web", 8080), "shop/web:8080"),
        (v1("web", "http"), "shop/web:http"),
        (old("web", 8080), "shop/web:8080"),
        (old("web", "http"), "shop/web:http"),
        (old("web", "8080"), "shop/web:8080"),
    ],
)
def test_a_port_is_a_number_or_a_name_in_all_versions(backend: Json, shown: str) -> None:
    for item in (
        ingress("web", rule({"path": "/", "backend": backend})),
        ingress("web", backend=backend),
        ingress("web", defaultBackend=backend),
    ):
        found = RuleTable([item]).find("example.com", "/")
        assert found is not None
        assert found.show() == shown
        assert not item.problems


def test_the_default_backend_is_taken_when_no_rule_of_any_ingress_fits() -> None:
    ingresses = [ingress("first", rule(("Exact", "/a", "one")), defaultBackend=v1("rest")), ingress("second", rule(("Exact", "/b", "two")))]
    table = RuleTable(ingresses)
    assert [leads(table, path) for path in ("/a", "/b", "/c")] == ["one", "two", "rest"]
    assert [leads(RuleTable(ingresses, ignore_defaults=True), path) for path in ("/a", "/b", "/c")] == ["one", "two", ""]


def test_a_rule_without_paths_leads_its_host_to_the_ingresss_default_backend() -> None:
    table = RuleTable(
        [
            ingress("older", defaultBackend=v1("rest"), created="2019-01-01T00:00:00Z"),
            ingress("web", {"host": "a.com"}, backend=old("mine")),
        ]
    )
    assert [leads(table, "/x", host) for host in ("a.com", "b.com")] == ["mine", "rest"]
    assert leads(RuleTable([ingress("web", {"host": "a.com"})]), "/", "a.com") == ""


# --- several ingresses


def test_of_two_that_say_the_same_the_older_counts_and_the_younger_is_told() -> None:
    young = ingress("a", rule(("Prefix", "/x/", "young"), host="a.com"), created="2021-01-01T00:00:00Z")
    aged = ingress("z", rule(("Prefix", "/x", "aged"), host="a.com"), created="2020-01-01T00:00:00Z", namespace="other")
    for order in ([young, aged], [aged, young]):
        table = RuleTable(order)
        assert leads(table, "/x", "a.com") == "aged"
        assert [str(problem) for problem in table.problems] == [
            "shop/a: spec.rules[0].http.paths[0]: Prefix '/x/' of a.com leads to other/aged:80 already, by other/z, which counts"
        ]


@pytest.mark.parametrize("kind", ["Exact", "Prefix", "ImplementationSpecific"])
def test_names_settle_what_the_age_leaves_open(kind: str) -> None:
    found = [ingress(name, rule((kind, "/x", name))) for name in ("b", "a", "c")]
    for order in itertools.permutations(found):
        table = RuleTable(order)
        assert leads(table, "/x") == "a"
        assert [problem.object for problem in table.problems] == ["shop/b", "shop/c"]


def test_one_without_a_time_stamp_counts_as_the_youngest() -> None:
    table = RuleTable([ingress("a", rule(("Exact", "/", "a")), created=""), ingress("b", rule(("Exact", "/", "b")))])
    assert leads(table, "/") == "b"


def test_the_oldest_default_backend_counts_and_others_are_told() -> None:
    table = RuleTable([ingress("b", backend=old("second")), ingress("a", backend=old("first")), ingress("c", backend=old("first"))])
    assert leads(table, "/") == "first"
    assert [problem.object for problem in table.problems] == ["shop/b"]


def test_the_same_said_twice_is_no_problem() -> None:
    assert not problems(ingress("a", rule(("Exact", "/", "web"), ("Exact", "/", "web"))), ingress("b", rule(("Exact", "/", "web"))))


# --- what is wrong with objects


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"rules": "x"}, "spec.rules: 'x' where a list is expected"),
        ({"rules": [7]}, "spec.rules[0]: 7 where a mapping is expected"),
        ({"rules": [{"host": "a b"}]}, "spec.rules[0].host: 'a b' is not a host name; expected one such as example.com or *.example.com"),
        ({"rules": [{"host": "*"}]}, "spec.rules[0].host: '*' is not a host name"),
        ({"rules": [{"host": "a.*.com"}]}, "spec.rules[0].host: 'a.*.com' is not a host name"),
        ({"rules": [{"host": "a.com:80"}]}, "spec.rules[0].host: 'a.com:80' is not a host name"),
        ({"rules": [{"host": ["a.com"]}]}, "spec.rules[0].host: a list is not a host name"),
        ({"rules": [{"http": []}]}, "spec.rules[0].http: a list where a mapping is expected"),
        ({"rules": [{"http": {"paths": {}}}]}, "spec.rules[0].http.paths: a mapping where a list is expected"),
        ({"rules": [rule({"path": "x", "pathType": "Exact", "backend": v1("a")})]}, "does not begin with /, which pathType Exact asks for"),
        ({"rules": [rule({"pathType": "Prefix", "backend": v1("a")})]}, "'' does not begin with /, which pathType Prefix asks for"),
        (
            {"rules": [rule({"path": "/", "pathType": "exact", "backend": v1("a")})]},
            ".pathType: 'exact' is unknown; known: Exact, Prefix, ",
        ),
        ({"rules": [rule({"path": 7, "backend": v1("a")})]}, ".path: 7 is not a path"),
        (
            {"rules": [rule({"path": "/(", "backend": v1("a")})]},
            ".path: '/(' cannot be used as a regular expression: the ( at character 2 is not closed",
        ),
        ({"rules": [rule({"path": "/"})]}, "spec.rules[0].http.paths[0].backend: None where a backend is expected"),
        (
            {"rules": [rule({"path": "/", "backend": {"resource": {"kind": "Bucket"}}})]},
            ".backend.resource: backends that are no services are not supported",
        ),
        (
            {"rules": [rule({"path": "/", "backend": {"service": {"name": "a"}}})]},
            ".backend.service.port: None is neither the number nor the name",
        ),
        ({"rules": [rule({"path": "/", "backend": v1("a", 70000)})]}, ".backend.service.port: 70000 is not a port number"),
        ({"rules": [rule({"path": "/", "backend": v1("a/b")})]}, ".backend.service.name: 'a/b' is not the name of a service"),
        ({"rules": [rule({"path": "/", "backend": old("a", "x/y")})]}, ".backend.servicePort: 'x/y' is neither"),
        ({"defaultBackend": {"resource": {}}}, "spec.defaultBackend.resource: backends"),
        ({"backend": old("")}, "spec.backend.serviceName: '' is not the name of a service"),
        ({"tls": [{"secretName": "../x"}]}, "spec.tls[0].secretName: '../x' is not the name of a secret"),
        ({"tls": [{"secretName": "x", "hosts": "a.com"}]}, "spec.tls[0].hosts: 'a.com' where a list is expected"),
        ({"tls": [{"secretName": "x", "hosts": ["a com"]}]}, "spec.tls[0].hosts[0]: 'a com' is not a host name"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_hides_nothing_good(spec: Json, expected: str) -> None:
    good = rule(("Exact", "/good", "good"))
    rules = spec.get("rules", [])
    bad = ingress(
        "bad", *([*rules, good] if isinstance(rules, list) else []), **{key: value for key, value in spec.items() if key != "rules"}
    )
    if not isinstance(rules, list):
        bad = read_ingress("shop", "bad", {"metadata": {}, "spec": spec})
    told = problems(bad, ingress("other", rule(("Exact", "/other", "other"))))
    assert len(told) == 1
    assert told[0].startswith("shop/bad: ")
    assert expected in told[0]
    table = RuleTable([bad, ingress("other", rule(("Exact", "/other", "other")))])
    assert leads(table, "/other") == "other"
    assert leads(table, "/good") == ("good" if isinstance(rules, list) else "")


def test_problems_of_one_object_are_bounded() -> None:
    assert len(problems(ingress("bad", *({"host": f"a b{number}"} for number in range(1000))))) == 20


FIELDS = [
    *("metadata", "annotations", "creationTimestamp", "spec", "rules", "http", "paths", "path", "pathType", "host", "backend", "service"),
    *("name", "port", "number", "serviceName", "servicePort", "tls", "hosts", "secretName", "defaultBackend", "ingressClassName"),
    *("resource", "controller"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)
near_ingresses = st.fixed_dictionaries(
    {
        "metadata": json_values,
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "rules": st.lists(
                    st.fixed_dictionaries(
                        {"host": json_values, "http": st.fixed_dictionaries({"paths": st.lists(json_values, max_size=3)})}
                    ),
                    max_size=3,
                ),
                "tls": st.lists(json_values, max_size=3),
                "backend": json_values,
                "defaultBackend": json_values,
            },
        ),
    }
)


@given(json_values | near_ingresses)
def test_no_object_whatever_it_is_raises(item: object) -> None:
    found = read_ingress("shop", "web", item)
    table = RuleTable([found])
    assert table.find("example.com", "/") is None or found.rules or found.default
    assert all(problem.object == "shop/web" for problem in table.problems)
    assert isinstance(read_class(item), IngressClass)
    assert Ownership().claim(found, {}) in Claim


# --- TLS


def test_tls_entries_name_the_hosts_of_the_rules_unless_they_have_own_ones() -> None:
    found = ingress(
        "web",
        rule(("Prefix", "/", "a"), host="A.com"),
        rule(("Prefix", "/", "b"), host="*.b.com"),
        tls=[{"secretName": "own", "hosts": ["B.b.com", "b.b.com"]}, {"secretName": "rules"}, {"hosts": ["c.com"]}],
    )
    assert [(entry.secret, entry.hosts) for entry in found.tls] == [("own", ("b.b.com",)), ("rules", ("a.com", "*.b.com"))]
    assert not found.problems


# --- classes


def classed(annotation: str | None = None, class_name: str | None = None) -> Ingress:
    annotations = {} if annotation is None else {"kubernetes.io/ingress.class": annotation}
    spec = {} if class_name is None else {"ingressClassName": class_name}
    return read_ingress("shop", "web", {"metadata": {"annotations": annotations}, "spec": spec})


OURS, NGINX = IngressClass("meshgw.io/ingress-controller"), IngressClass("k8s.io/ingress-nginx")


@pytest.mark.parametrize(
    ("annotation", "class_name", "expected"),
    [
        (None, None, Claim.NOBODYS),
        ("linkerd", None, Claim.OURS),
        ("nginx", None, Claim.OTHERS),
        ("", None, Claim.OTHERS),
        (None, "linkerd", Claim.OURS),
        (None, "edge", Claim.OURS),
        (None, "nginx", Claim.OTHERS),
        (None, "unknown", Claim.OTHERS),
        ("linkerd", "nginx", Claim.OURS),
        ("nginx", "edge", Claim.OTHERS),
    ],
)
def test_an_ingress_belongs_to_the_class_it_names(annotation: str | None, class_name: str | None, expected: Claim) -> None:
    assert Ownership().claim(classed(annotation, class_name), {"edge": OURS, "nginx": NGINX}) is expected


def test_ingresses_without_class_are_ours_where_our_class_is_the_default() -> None:
    default = read_class(
        {
            "metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "meshgw.io/ingress-controller"},
        }
    )
    for takes in (True, False):
        assert Ownership(takes_unclaimed=takes).claim(classed(), {"edge": default}) is Claim.OURS
    assert Ownership(takes_unclaimed=False).claim(classed(), {"edge": OURS}) is Claim.OTHERS


def test_classes_are_only_looked_up_where_the_answer_depends_on_them() -> None:
    assert not Ownership().needs_classes([classed(), classed("nginx"), classed(None, "linkerd"), classed("nginx", "edge")])
    assert Ownership().needs_classes([classed(), classed(None, "edge")])
    assert Ownership(takes_unclaimed=False).needs_classes([classed()])


def test_regular_expressions_of_rules_are_bounded_in_what_a_match_costs() -> None:
    table = RuleTable([ingress("web", rule({"path": "/(a+)+b", "backend": v1("a")}))])
    assert leads(table, "/" + "a" * 5000) == ""
    told = problems(ingress("web", rule({"path": r"/(a)\1", "backend": v1("a")})))
    assert re.search(r"cannot be used as a regular expression: \\1 at character \d+ is not supported", told[0])
