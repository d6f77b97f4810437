"""Who may call what: order, defaults, audit, counters, and what cannot be got around."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from meshgw.config.access import AccessControl, AccessMatch, AccessRule, IdentityPattern, PathPrefix
from meshgw.core.exchange import Exchange
from meshgw.core.secured import Secured
from meshgw.errors import AccessDenied
from meshgw.filters.authorization import LOG_SECONDS, Access, Authorized
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Metrics

WEB = "spiffe://mesh/ns/prod/sa/web"
USERS = Path.of("svc", "users")


def match(**words: Any) -> AccessMatch:
    readers: dict[str, Any] = {"identity": IdentityPattern.read, "service": Path.read, "path": PathPrefix.read, "methods": tuple}
    return AccessMatch(**{name: readers[name](value) for name, value in words.items()})


def allow(**words: Any) -> AccessRule:
    return AccessRule(allow=match(**words))


def deny(**words: Any) -> AccessRule:
    return AccessRule(deny=match(**words))


class Rules:
    """The rules of a router, and the requests that are put to them."""

    def __init__(self, *rules: AccessRule, **words: Any) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        config = AccessControl(rules=rules, **words)
        self.access = Access(config, clock=self.clock.seconds, metrics=self.metrics.scope("rt", "http"), label="http")

    def ask(self, target: bytes = b"/", *, by: str | None = WEB, method: bytes = b"GET", name: Path = USERS, dtab: str = "") -> bool:
        ex = Exchange()
        ex.peer = ("192.0.2.1", 1)
        ex.method, ex.target = method, target
        ex.secured = Secured(identity=by)
        ex.dtab = Dtab.read(dtab) if dtab else None
        try:
            self.access.check(ex, name, target)
        except AccessDenied as error:
            self.error = error
            return False
        return True

    def counted(self) -> dict[str, int]:
        counters = self.metrics.snapshot().counters
        return {"/".join(names[3:]): value for names, value in counters.items() if names[:3] == ("rt", "http", "access") and value}


def test_the_first_rule_that_fits_decides() -> None:
    rules = Rules(allow(path="/a/b"), deny(path="/a"), allow())
    assert rules.ask(b"/a/b/c")
    assert not rules.ask(b"/a/c")
    assert rules.ask(b"/d")
    assert rules.counted() == {"allowed": 2, "denied": 1, "rules/1": 1, "rules/2": 1, "rules/3": 1}


@pytest.mark.parametrize(("default", "passes"), [("allow", True), ("deny", False)])
def test_what_fits_no_rule_is_left_to_the_default(default: str, passes: bool) -> None:
    rules = Rules(deny(path="/a"), default=default)
    assert rules.ask(b"/b") is passes
    assert rules.counted()["rules/default"] == 1


def test_a_refusal_says_which_rule_it_was() -> None:
    rules = Rules(allow(methods=["HEAD"]), deny(identity="*/web", path="/admin"))
    assert not rules.ask(b"/admin?secret=1")
    assert str(rules.error) == (f"access denied by rule 2 (deny identity=*/web path=/admin) of accessControl: GET to /svc/users by {WEB}")
    assert rules.error.status == 403
    assert not rules.error.retry_safe


def test_a_caller_without_identity_fits_only_rules_without_one() -> None:
    rules = Rules(allow(identity="*", path="/all"), allow(identity="", path="/public"), default="deny")
    assert rules.ask(b"/all")
    assert not rules.ask(b"/all", by=None)
    assert "by a caller without identity" in str(rules.error)
    assert rules.ask(b"/public", by=None)
    assert not rules.ask(b"/public")


def test_a_plaintext_caller_has_no_identity() -> None:
    ex = Exchange()
    ex.method, ex.peer = b"GET", ("192.0.2.1", 1)
    with pytest.raises(AccessDenied, match="without identity"):
        Rules(allow(identity="*")).access.check(ex, USERS, b"/")


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        (USERS, True),
        (Path.of("svc", "users", "v2"), True),
        (Path.of("svc", "users2"), False),
        (Path.of("svc"), False),
        (Path.of("svc", "Users"), False),
    ],
)
def test_a_service_is_the_beginning_of_a_name(name: Path, passes: bool) -> None:
    assert Rules(allow(service="/svc/users")).ask(name=name) is passes


def test_what_denies_is_not_dodged_by_letter_case() -> None:
    words = {"identity": "spiffe://mesh/*/Web", "service": "/svc/Users", "methods": ["Post"], "path": "/Admin"}
    asked: dict[str, Any] = {"target": b"/aDMIN", "by": WEB.upper(), "method": b"POST", "name": Path.of("svc", "USERS")}
    assert not Rules(deny(**words), default="allow").ask(**asked)
    assert not Rules(allow(**words), default="deny").ask(**asked)


def test_methods_that_allow_are_exact() -> None:
    rules = Rules(allow(methods=["GET"]))
    assert rules.ask(method=b"GET")
    assert not rules.ask(method=b"get")


def test_delegations_of_the_caller_are_refused_as_they_lead_elsewhere() -> None:
    rules = Rules(allow())
    assert not rules.ask(dtab="/svc/users => /svc/admin")
    assert "dtabOverrides" in str(rules.error)
    assert rules.counted() == {"denied": 1, "rules/dtabOverrides": 1}
    assert Rules(allow(), dtab_overrides=True).ask(dtab="/svc/users => /svc/admin")


def test_an_audit_lets_pass_and_counts() -> None:
    rules = Rules(deny(path="/admin"), mode="audit", default="allow")
    assert rules.ask(b"/admin")
    assert rules.ask(b"/")
    assert rules.counted() == {"allowed": 1, "audited": 1, "rules/1": 1, "rules/default": 1}


def test_many_refusals_make_few_lines_of_log_and_no_secrets() -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        rules = Rules(mode="audit")
        for number in range(50):
            rules.ask(b"/p\x9b%d?token=secret" % number)
        rules.clock.advance(LOG_SECONDS)
        rules.ask(b"/last")
    finally:
        globalLogPublisher.removeObserver(events.append)
    told = [event for event in events if event.get("label") == "http"]
    assert len(told) == 2
    assert "secret" not in str(told)
    assert "\x9b" not in told[0]["path"]
    assert told[0]["outcome"] == "would be refused"
    assert told[1]["more"] == " (49 more of this rule since the last line)"


def test_what_is_remembered_of_callers_is_bounded() -> None:
    rules = Rules(deny(path="/x"), default="allow")
    for number in range(3000):
        assert rules.ask(by=f"spiffe://mesh/{number}")
    assert rules.ask(name=Path.of("svc", "n" * 10_000))
    assert len(rules.access._known) <= 1024


class Cutting:
    """An identifier that cuts the target, as one by path does."""

    def __init__(self, name: Path | str) -> None:
        self.name = name

    def identify(self, ex: Exchange) -> Path | str:
        ex.target = b"/"
        return self.name


def test_the_path_is_judged_as_the_caller_sent_it() -> None:
    rules = Rules(deny(path="/admin"), default="allow")
    ex = Exchange()
    ex.method, ex.target, ex.peer = b"GET", b"/admin/x", ("192.0.2.1", 1)
    with pytest.raises(AccessDenied):
        Authorized(Cutting(USERS), rules.access).identify(ex)


def test_a_request_without_name_is_not_judged() -> None:
    rules = Rules()
    assert Authorized(Cutting("no name"), rules.access).identify(Exchange()) == "no name"
    assert rules.counted() == {}
