"""``/access.json``."""

from __future__ import annotations

from fakes.admin import Browser, Gateway
from meshgw.admin.api import RouterView
from meshgw.config.access import AccessControl, AccessMatch, AccessRule, PathPrefix
from meshgw.naming.dtab import Dtab

RULES = (AccessRule(deny=AccessMatch(path=PathPrefix.read("/admin"))), AccessRule(allow=AccessMatch(methods=("GET",))))


def test_rules_are_listed_with_their_hits() -> None:
    gateway = Gateway()
    gateway.routers = {
        "edge": RouterView("edge", Dtab.EMPTY, AccessControl(rules=RULES)),
        "audited": RouterView("audited", Dtab.EMPTY, AccessControl(mode="audit", default="allow", dtab_overrides=True)),
        "open": RouterView("open", Dtab.EMPTY),
    }
    for names, count in ((("allowed",), 5), (("denied",), 3), (("rules", "1"), 2), (("rules", "default"), 1)):
        gateway.metrics.counter("rt", "edge", "access", *names).incr(count)
    gateway.metrics.counter("rt", "audited", "access", "audited").incr(7)
    assert Browser(gateway).get("/access.json").json == {
        "edge": {
            "mode": "enforce",
            "allowed": 5,
            "denied": 3,
            "rules": [{"rule": "deny path=/admin", "hits": 2}, {"rule": "allow methods=GET", "hits": 0}],
            "default": {"rule": "deny everything", "hits": 1},
            "dtabOverrides": {"rule": "deny", "hits": 0},
        },
        "audited": {
            "mode": "audit",
            "allowed": 0,
            "audited": 7,
            "rules": [],
            "default": {"rule": "allow everything", "hits": 0},
            "dtabOverrides": {"rule": "allow", "hits": 0},
        },
    }


def test_without_rules_there_is_nothing_to_show() -> None:
    assert Browser().get("/access.json").json == {}
