"""The views for whoever looks for the cause of something: threads, stalls, profiles, stacks of filters, addresses with their health.

Source: linkerd-config spec 2.3. Each puts together what the processes of a gateway answer (``app.diagnosis``). Linkerd's
``/admin/pprof/heap`` and ``/contention`` have no counterpart: what they tell, the interpreter could only learn by slowing everything down.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, Final

import attrs

from meshgw.admin.api import JSON, Answer, GatewayView, Query, json_answer
from meshgw.core.slices import Slices, Work, collected
from meshgw.telemetry.pprof import encode_profile
from meshgw.telemetry.stacks import FASTEST_HZ, LONGEST_SECONDS, collapsed

DEFAULT_SECONDS: Final = 10.0
DEFAULT_HZ: Final = 100
PATIENCE: Final = 5.0
"""Seconds beyond those of a profile within which it must have come."""
ENVIRONMENT: Final = frozenset(
    {
        *("HOME", "HOSTNAME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "TZ", "USER"),
        *("NODE_NAME", "POD_IP", "POD_NAME", "POD_NAMESPACE"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONMALLOC", "PYTHONPATH", "PYTHONUNBUFFERED"),
    }
)
"""Variables whose value is shown: any other may hold a secret."""
_LIBRARIES: Final = ("meshgw", "twisted", "pyopenssl", "cryptography", "attrs", "pyyaml", "txaio", "kazoo", "jh2")

Threads = Mapping[str, Mapping[str, Any]]


class ThreadViews:
    """``/admin/threads``, ``/admin/threads.json`` and ``/admin/contention``."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    async def json(self, query: Query) -> Answer:
        """By process: its threads by number, and the stalls of its reactor."""
        return json_answer(await self._view.diagnose("threads"))

    async def text(self, query: Query) -> Answer:
        """The same to read."""
        return Answer(_threads_text(await self._view.diagnose("threads"), lambda _thread: True))

    async def contention(self, query: Query) -> Answer:
        """What kept each reactor from its work, and which threads wait."""
        answers = await self._view.diagnose("threads")
        lines = []
        for name, answer in answers.items():
            if "error" not in answer:
                stalls = answer["reactor"]
                lines.append(
                    f"{name}: longest stall of the reactor {stalls['longestMs']} ms, {stalls['longestSecondsAgo']} s ago; "
                    f"in the last minute {stalls['lastMinuteMs']} ms\n"
                )
        return Answer("".join(lines) + "\nWaiting threads:\n" + _threads_text(answers, lambda thread: thread["state"] == "waiting"))


def _threads_text(answers: Mapping[str, Any], is_shown: Callable[[Mapping[str, Any]], bool]) -> str:
    parts = []
    for name, answer in answers.items():
        if "error" in answer:
            parts.append(f"\n== {name}: {answer['error']}\n")
            continue
        shown = [(number, thread) for number, thread in answer["threads"].items() if is_shown(thread)]
        parts.append(f"\n== {name}: {len(shown)} of {len(answer['threads'])} threads\n")
        for number, thread in shown:
            daemon = ", daemon" if thread["daemon"] else ""
            parts.append(f"\n{thread['thread']} ({number}{daemon}): {thread['state']}\n")
            parts += [f"    {frame}\n" for frame in thread["stack"]]
    return "".join(parts)


class ProfileView:
    """``/admin/pprof/profile``: where the threads of all processes spend their time, looked at while the answer waits."""

    def __init__(self, view: GatewayView, now: Callable[[], float]) -> None:
        """``now`` gives seconds since the epoch."""
        self._view, self._now = view, now

    async def __call__(self, query: Query) -> Answer:
        """Gzipped protocol buffers for pprof, or with ``format=collapsed`` text for flame graphs; ``seconds`` and ``hz`` bound it."""
        seconds, hz = _within(query.first("seconds"), DEFAULT_SECONDS, LONGEST_SECONDS), _within(query.first("hz"), DEFAULT_HZ, FASTEST_HZ)
        form = query.first("format") or "pprof"
        if seconds is None or hz is None or hz < 1 or form not in ("pprof", "collapsed"):
            text = f"seconds is up to {LONGEST_SECONDS:g}, hz from 1 to {FASTEST_HZ}, and format pprof or collapsed\n"
            return Answer(text, status=400)
        answers = await self._view.diagnose("profile", [seconds, int(hz)], seconds=seconds + PATIENCE)
        failed = [f"{name}: {answer['error']}" for name, answer in answers.items() if "error" in answer]
        if len(failed) == len(answers):
            return Answer("\n".join([*failed, ""]), status=503)
        samples = {
            stack if len(answers) == 1 else f"{name};{stack}": count
            for name, answer in answers.items()
            if "error" not in answer
            for stack, count in answer.items()
        }
        if form == "collapsed":
            return Answer(collapsed(samples))
        body = encode_profile(samples, hz=int(hz), seconds=seconds, at=self._now())
        return Answer(body, "application/octet-stream", headers=(("Content-Disposition", 'attachment; filename="profile.pb.gz"'),))


def _within(text: str | None, default: float, most: float) -> float | None:
    """The number in ``text``, above 0 and up to ``most``; None if it is none."""
    try:
        value = default if text is None else float(text)
    except ValueError:
        return None
    return value if 0 < value <= most else None


class AddressesView:
    """``/admin/addresses.json``: where each service's requests go now, and how every endpoint is, for scripts that wait for a change."""

    def __init__(self, view: GatewayView, slices: Slices) -> None:
        self._view, self._slices = view, slices

    async def __call__(self, query: Query) -> Answer:
        """All services that are bound, or those of ``router`` and the one named ``service``; 404 where nothing has been bound."""
        router, service = query.first("router"), query.first("service")
        if router is not None and router not in self._view.routers:
            return json_answer({"error": f"there is no router {router!r}", "routers": list(self._view.routers)}, 404)
        answers = await self._view.diagnose("addresses", [router, service])
        told = {name: answer for name, answer in answers.items() if not isinstance(answer, Mapping)}
        services = await self._slices.run(joined_addresses(told))
        failed = {name: answer["error"] for name, answer in answers.items() if isinstance(answer, Mapping)}
        content: dict[str, Any] = {"services": services} | ({"unanswered": failed} if failed else {})
        if service is not None and not services and not failed:
            content["error"] = f"no request has asked for {service} yet, or not lately; /delegator.json tells where it would go"
            return json_answer(content, 404)
        return Answer(await self._slices.run(collected(_pieces(content))), JSON)


def _pieces(content: Mapping[str, Any]) -> Iterator[bytes]:
    """The answer in JSON, a service at a time."""
    before = b'{"services": ['
    for service in content["services"]:
        yield before + json.dumps(service).encode()
        before = b", "
    rest = json.dumps({name: value for name, value in content.items() if name != "services"})[1:].encode()
    yield (b"" if content["services"] else before) + (b"]}" if rest == b"}" else b"], " + rest)


def joined_addresses(answers: Mapping[str, list[dict[str, Any]]]) -> Work[list[dict[str, Any]]]:
    """The services of several processes: each once, with each of its clients once, and each address as the processes see it."""
    services: dict[tuple[Any, ...], dict[str, Any]] = {}
    for process, answer in answers.items():
        for one in answer:
            key = (one["router"], one["service"], one.get("dtab"))
            service = services.setdefault(key, {name: value for name, value in one.items() if name != "clients"} | {"clients": {}})
            for client in one["clients"]:
                _join_client(service["clients"], client, process)
            yield
    shown = sorted(services.values(), key=lambda service: (service["router"], service["service"], service.get("dtab", "")))
    for service in shown:
        service["clients"] = [client | {"addresses": list(client["addresses"].values())} for client in service["clients"].values()]
    return shown


def _join_client(clients: dict[str, Any], client: Mapping[str, Any], process: str) -> None:
    own = {name: value for name, value in client.items() if name not in ("addresses", "endpoints")}
    known = clients.setdefault(client["client"], {**own, "addresses": {}})
    for endpoint in client["endpoints"]:
        state = {name: value for name, value in endpoint.items() if name not in ("address", "weight")}
        address = known["addresses"].setdefault(
            endpoint["address"], {"address": endpoint["address"], "weight": endpoint.get("weight", 1.0), "processes": {}}
        )
        address["processes"][process] = state


@attrs.frozen
class RegistryView:
    """``/admin/registry.json``: the stacks as they were compiled for each place, libraries, properties, and harmless environment."""

    view: GatewayView

    async def __call__(self, query: Query) -> Answer:
        """In the shape of twitter-server's: everything below ``registry``."""
        answers = await self.view.diagnose("stacks")
        stacks: dict[str, Any] = {}
        for answer in answers.values():  # of workers with the same routers the last one that answered
            stacks |= {} if "error" in answer else answer
        system = {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
            "executable": sys.executable,
            "pid": os.getpid(),
        }
        registry = {"stacks": stacks, "library": libraries(), "system": {"env": harmless(os.environ), "properties": system}}
        return json_answer({"registry": registry})


def libraries() -> dict[str, str]:
    """The versions of what does the work."""
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def harmless(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that hold no secret."""
    return {name: value for name, value in sorted(environment.items()) if name in ENVIRONMENT}


class SmallViews:
    """Views of a few lines."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    def announcer(self, query: Query) -> Answer:
        """``/admin/announcer``: each name with its addresses, and whether others can find them."""
        lines: list[str] = []
        for name, addresses in self._view.announcements().items():
            for address, state in addresses.items():
                why = f": {state['error']}" if state.get("error") else ""
                lines.append(f"{name} => {address}: {'announced' if state['announced'] else 'not announced'}{why}\n")
        return Answer("".join(lines) or "nothing is announced\n")

    def usage(self, query: Query) -> Answer:
        """``/admin/metrics/usage``: what is told others about this process's use."""
        return json_answer({"sent": False, "report": {}, "note": "meshgw reports its use to nobody"})


def wall_clock() -> float:
    """Seconds since the epoch."""
    return time.time()  # noqa: TID251 - profiles are dated by the wall clock
