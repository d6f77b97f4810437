"""``/admin/lint``: what an operator should know about this gateway without having asked for it.

Source: linkerd-config spec 2.3; the rules are our own, the shape of the JSON is twitter-server's. A rule looks at the configuration, at
the metrics, at the clients, and at what processes find wrong with themselves; each sentence it gives names the thing and what to do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from meshgw.admin.api import Answer, GatewayView, Query, json_answer
from meshgw.config.models import AdminConfig, Config
from meshgw.core.slices import Slices, Work, batched
from meshgw.telemetry.metrics import Snapshot

MOST_ISSUES = 50
"""Sentences of one rule that are shown."""
COUNTED = frozenset({"dropped", "lost", "oneshots", "aborts", "restarts"})
VERBOSE = frozenset({"ALL", "TRACE", "DEBUG"})


@attrs.frozen(kw_only=True)
class Facts:
    """What the rules look at. ``counted`` are the counters above 0 that may be of interest, ``found`` pairs of rule and sentence that
    processes gave, ``unanswered`` says which gave none, and why.
    """

    config: Config
    remarks: Sequence[str]
    counted: Mapping[tuple[str, ...], int]
    loggers: Sequence[tuple[str, str]]
    found: Sequence[tuple[str, str]]
    unanswered: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Rule:
    """One rule: ``issues`` gives a sentence for each thing that is not as it should be."""

    id: str
    category: str
    description: str
    issues: Callable[[Facts], Iterator[str]]


def _admin_for_all(facts: Facts) -> Iterator[str]:
    admin = facts.config.admin
    proves = admin.tls is not None and admin.tls.require_client_auth
    if not _is_loopback(admin) and admin.authentication is None and not proves:
        yield f"admin listens on {admin.ip} and asks nobody who he is: anybody there can end the process; set admin.authentication"


def _clear_tokens(facts: Facts) -> Iterator[str]:
    admin = facts.config.admin
    if not _is_loopback(admin) and admin.authentication is not None and admin.tls is None:
        yield f"admin listens on {admin.ip} without TLS, so that tokens travel in cleartext; set admin.tls"


def _is_loopback(admin: AdminConfig) -> bool:
    return ipaddress.ip_address(admin.ip).is_loopback


def _no_exporter(facts: Facts) -> Iterator[str]:
    if not facts.config.telemetry:
        yield "telemetry is empty: nothing collects metrics or traces but whoever asks /admin/metrics.json"


def _remarks(facts: Facts) -> Iterator[str]:
    yield from facts.remarks


def _counted(path: Sequence[str], text: str) -> Callable[[Facts], Iterator[str]]:
    """Sentences for counters above 0 at ``path``, in which ``*`` is any name; ``text`` is told ``count`` and the names as ``where``."""

    def issues(facts: Facts) -> Iterator[str]:
        for names, count in facts.counted.items():
            if len(names) == len(path) and all(one in ("*", name) for one, name in zip(path, names, strict=True)):
                where = " ".join(name for one, name in zip(path, names, strict=True) if one == "*")
                yield text.format(count=count, where=where)

    return issues


def interesting(snapshot: Snapshot) -> Work[dict[tuple[str, ...], int]]:
    """The counters that rules look at, by the last of their names: there may be a hundred thousand others."""
    found: dict[tuple[str, ...], int] = {}
    for lot in batched(snapshot.counters.items(), 500):
        found |= {names: count for names, count in lot if count and names and names[-1] in COUNTED}
        yield
    return found


def _verbose(facts: Facts) -> Iterator[str]:
    for name, level in facts.loggers:
        if level in VERBOSE and (name == "root" or dict(facts.loggers)["root"] not in VERBOSE):
            yield f"the logger {name} has the level {level}, which costs time and disk"


def _found(id: str) -> Callable[[Facts], Iterator[str]]:
    return lambda facts: (text for rule, text in facts.found if rule == id)


def _unanswered(facts: Facts) -> Iterator[str]:
    for name, why in facts.unanswered.items():
        yield f"{name} did not answer: {why}"


RULES = (
    Rule(id="admin-for-everybody", category="Security", description="Admin asks who uses it.", issues=_admin_for_all),
    Rule(id="tokens-in-cleartext", category="Security", description="Tokens of admin are protected on their way.", issues=_clear_tokens),
    Rule(
        id="certificates",
        category="Security",
        description="Certificates of listeners are valid for two weeks.",
        issues=_found("certificates"),
    ),
    Rule(id="configuration", category="Configuration", description="The configuration has no remarks.", issues=_remarks),
    Rule(id="no-telemetry", category="Configuration", description="Metrics or traces are collected.", issues=_no_exporter),
    Rule(id="verbose-logging", category="Configuration", description="No logger is left at a verbose level.", issues=_verbose),
    Rule(id="stale-discovery", category="Discovery", description="Addresses are up to date.", issues=_found("stale-discovery")),
    Rule(id="no-endpoint", category="Discovery", description="Every client has an endpoint to send to.", issues=_found("no-endpoint")),
    Rule(
        id="metrics-dropped",
        category="Telemetry",
        description="All metrics have room.",
        issues=_counted(("metrics", "dropped"), "{count} metrics had no room and are missing: there are too many names"),
    ),
    Rule(
        id="access-log",
        category="Telemetry",
        description="Access logs have every line.",
        issues=_counted(("rt", "*", "access_log", "lost"), "router {where}: {count} lines of the access log are lost; the log says why"),
    ),
    Rule(
        id="bindings",
        category="Performance",
        description="The binding cache has room for all names in use.",
        issues=_counted(("rt", "*", "bindcache", "path", "oneshots"), "router {where}: {count} requests found bindingCache.paths full"),
    ),
    Rule(
        id="faults",
        category="Configuration",
        description="No faults are injected.",
        issues=_counted(("rt", "*", "service", "*", "faults", "aborts"), "{where}: {count} requests were answered by an injected fault"),
    ),
    Rule(
        id="worker-restarts",
        category="Stability",
        description="No worker has ended unasked.",
        issues=_counted(("workers", "restarts"), "workers ended unasked, or could not start, {count} times; the log says why"),
    ),
    Rule(id="unanswered", category="Stability", description="Every process answers.", issues=_unanswered),
    Rule(id="stalls", category="Performance", description="Nothing keeps the reactor from its work.", issues=_found("stalls")),
    Rule(id="descriptors", category="Performance", description="File descriptors are not running out.", issues=_found("descriptors")),
)


def results(facts: Facts, rules: Sequence[Rule] = RULES) -> Work[dict[str, Any]]:
    """The outcome of all rules as JSON data, a rule at a time."""
    failed, good, count = [], [], 0
    for rule in rules:
        issues = list(rule.issues(facts))
        entry = {"id": rule.id, "category": rule.category, "description": rule.description}
        if issues:
            count += len(issues)
            failed.append(entry | {"issues": issues[:MOST_ISSUES]})
        else:
            good.append(entry)
        yield
    metadata = {"num_rules": len(rules), "num_issues": count}
    return {"lint_results": {"metadata": metadata, "failed_rules": failed, "ok_rules": good}}


class LintViews:
    """``/admin/lint`` to read and ``/admin/lint.json``."""

    def __init__(self, view: GatewayView, slices: Slices) -> None:
        self._view, self._slices = view, slices

    async def json(self, query: Query) -> Answer:
        """The results."""
        return json_answer(await self._slices.run(results(await self._facts())))

    async def text(self, query: Query) -> Answer:
        """The same to read."""
        found = (await self._slices.run(results(await self._facts())))["lint_results"]
        lines = [f"{found['metadata']['num_issues']} issues by {found['metadata']['num_rules']} rules\n"]
        for rule in found["failed_rules"]:
            lines.append(f"\n{rule['category']}: {rule['id']}\n")
            lines += [f"    {issue}\n" for issue in rule["issues"]]
        lines.append("\nwithout issues: " + ", ".join(rule["id"] for rule in found["ok_rules"]) + "\n")
        return Answer("".join(lines))

    async def _facts(self) -> Facts:
        view = self._view
        answers = await view.diagnose("problems")
        failed = {name: answer["error"] for name, answer in answers.items() if isinstance(answer, Mapping)}
        found = [
            (rule, text if len(answers) == 1 else f"{name}: {text}")
            for name, answer in answers.items()
            if not isinstance(answer, Mapping)
            for rule, text in answer
        ]
        return Facts(
            config=view.config,
            remarks=view.remarks,
            counted=await self._slices.run(interesting(await view.snapshot())),
            loggers=await view.loggers(),
            found=list(dict.fromkeys(found)),
            unanswered=failed,
        )
