"""What is asked of an API server of Kubernetes and what it tells, as values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kubernetes import endpoints, status
from meshgw.backends.kubernetes_objects import (
    ENDPOINTS,
    INGRESS_CLASSES,
    INGRESSES,
    INGRESSES_EXTENSIONS,
    SECRETS,
    Objects,
    Wanted,
    is_before,
    name_of,
    pruned,
    read_status,
    same,
    told,
    version_of,
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "name", "namespace", "kind", "status", "code", "message", "resourceVersion", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def test_paths_are_those_of_the_api() -> None:
    assert ENDPOINTS.path("shop") == "/api/v1/namespaces/shop/endpoints"
    assert SECRETS.path(None) == "/api/v1/secrets"
    assert INGRESSES.path("shop", "web", "status") == "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status"
    assert INGRESSES_EXTENSIONS.path(None) == "/apis/extensions/v1beta1/ingresses"
    assert INGRESS_CLASSES.path(None, "linkerd") == "/apis/networking.k8s.io/v1/ingressclasses/linkerd"


def test_a_name_cannot_reach_another_path() -> None:
    assert ENDPOINTS.path("..", "a/b?c") == "/api/v1/namespaces/%2E%2E/endpoints/a%2Fb%3Fc"


def test_a_single_object_is_chosen_by_a_field_so_that_a_right_to_it_alone_is_enough() -> None:
    assert Wanted(ENDPOINTS, "shop", "web").selectors == [("fieldSelector", "metadata.name=web")]
    assert Wanted(SECRETS, None, labels="a=b", fields="type=kubernetes.io/tls").selectors == [
        ("labelSelector", "a=b"),
        ("fieldSelector", "type=kubernetes.io/tls"),
    ]


def test_what_is_watched_is_shown_in_short() -> None:
    assert Wanted(ENDPOINTS, "shop", "web").show() == "endpoints shop/web"
    assert Wanted(ENDPOINTS, None, labels="app=web").show() == "endpoints */*:app=web"


def test_noise_is_left_out_and_the_rest_stays() -> None:
    value = endpoints(
        "web",
        "10.0.0.1",
        managedFields=[1],
        labels={"a": "b"},
        annotations={"control-plane.alpha.kubernetes.io/leader": "x", "kubectl.kubernetes.io/last-applied-configuration": "y", "mine": "z"},
    )
    kept = pruned(value)
    assert kept["metadata"] == {"name": "web", "namespace": "default", "labels": {"a": "b"}, "annotations": {"mine": "z"}}
    assert kept["subsets"] == value["subsets"]
    assert "managedFields" in value["metadata"], "what was given is not changed"


def test_objects_are_the_same_when_only_their_version_differs() -> None:
    one = endpoints("web", "10.0.0.1", resourceVersion="1")
    assert same(one, endpoints("web", "10.0.0.1", resourceVersion="2"))
    assert not same(one, endpoints("web", "10.0.0.2", resourceVersion="1"))
    assert not same(one, endpoints("web", "10.0.0.1", resourceVersion="1", labels={"a": "b"}))
    assert not same(one, {**one, "extra": 1})


def test_a_status_that_tells_of_success_is_no_error() -> None:
    assert read_status({"kind": "Status", "status": "Success"}) is None
    found = read_status(status(410, "Expired", "too old"))
    assert found is not None and (found.code, found.reason, found.message) == (410, "Expired", "too old")


@pytest.mark.parametrize("code", [None, "410", True, 7, 10**9])
def test_a_status_without_a_usable_code_counts_as_500(code: object) -> None:
    found = read_status({"kind": "Status", "status": "Failure", "code": code})
    assert found is not None and found.code == 500


def test_a_refusal_is_told_by_its_message_or_its_text() -> None:
    assert told(json.dumps(status(403, "Forbidden", "not you")).encode()) == "not you"
    assert told(b"404 page not found\n") == "404 page not found\n"
    assert told(b"\xff") == "\ufffd"


@pytest.mark.parametrize(
    ("version", "other", "expected"), [("9", "10", True), ("10", "9", False), ("9", "9", False), ("", "9", False), ("9", "x", False)]
)
def test_versions_are_compared_as_numbers_if_they_are_some(version: str, other: str, expected: bool) -> None:
    assert is_before(version, other) is expected


def test_admin_sees_how_many_objects_there_are_and_the_first_names() -> None:
    many = Objects({("default", f"n{number}"): {} for number in range(80)} | {("", "class"): {}})
    described = many.describe()
    assert described["count"] == 81
    assert isinstance(described["names"], list) and len(described["names"]) == 50


@given(anything)
def test_no_json_makes_reading_raise(value: Any) -> None:
    read_status(value)
    version_of(value)
    name = name_of(value)
    if name is not None:
        assert same(pruned(value), pruned(value))


@given(st.binary(max_size=40))
def test_no_body_makes_telling_raise(body: bytes) -> None:
    assert isinstance(told(body), str)
