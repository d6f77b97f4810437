"""``meshgw dtab PATH``: explain how a name is bound, by a configuration file or by a running process.

Source: linkerd-config spec 2.4 (``/delegator.json``) and dtab spec 6. With ``--config`` the interpreter is built in this process and its
namers are asked for real, without any listener. Exit status: 0 the name is bound and has an address, 1 it is not, 2 usage or failure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as TwistedTimeout
from twisted.internet.task import react

from meshgw.bind.delegate import with_addresses
from meshgw.bind.explain import delegation_from_json, delegation_to_json, has_endpoints, render_delegation
from meshgw.core.live import Failed, Live, Ok, Pending, State, current
from meshgw.errors import MeshError
from meshgw.kinds import Delegator
from meshgw.naming.delegation import Delegation
from meshgw.naming.dtab import Dtab, DtabSyntaxError
from meshgw.naming.path import Path

BOUND: Final = 0
NOT_BOUND: Final = 1
TROUBLE: Final = 2
LONGEST_TOKEN: Final = 8192
LARGEST_ANSWER: Final = 64_000_000  # bytes; a delegation with thousands of addresses stays far below


class Load(Protocol):
    """Build the interpreter of a router from a configuration file, for explaining only.

    Gives the router's dtab, its interpreter, and the functions that start and stop the services behind it; either may return a
    Deferred. Raises :class:`MeshError`, ``ValueError`` or ``OSError`` for a configuration that cannot be used.
    """

    def __call__(
        self, config_file: str, router_label: str | None, reactor: Any
    ) -> tuple[Dtab, Delegator, Callable[[], object], Callable[[], object]]: ...


class Trouble(Exception):
    """The question cannot be answered; the text is for the operator."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.description = "Explain step by step how a name is bound, and to which addresses."
    parser.add_argument("path", metavar="PATH", help="the name, for example /svc/web")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="use this configuration file")
    source.add_argument("--admin", metavar="URL", help="ask the running process with this admin address, for example http://127.0.0.1:9990")
    parser.add_argument("--token-file", metavar="FILE", help="with --admin: file of the reader's or operator's token, if one is needed")
    parser.add_argument("--router", metavar="LABEL", help="the router's label; by default the first router of the configuration")
    parser.add_argument("--dtab", metavar="EXTRA", default="", help="entries put after the router's, as the header l5d-dtab would")
    parser.add_argument("--json", action="store_true", help="print the delegation tree as JSON, as /delegator.json gives it")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=5.0, help="wait this long for an answer (default: 5)")


def run(args: argparse.Namespace, load: Load | None = None) -> int:
    """Carry the subcommand out; the exit status. ``load`` is ``meshgw.app.explain.load`` unless given."""
    try:
        path, extra = Path.read(args.path), Dtab.read(args.dtab)
    except DtabSyntaxError as error:
        return _complain(f"{error}\n{error.caret()}")
    if not args.timeout > 0:
        return _complain("--timeout must be positive")
    try:
        if args.admin:
            token = _token(args.token_file) if args.token_file else ""
            return _show(ask_admin(args.admin, args.router, path, extra, args.timeout, token), as_json=args.json)
        return _run_offline(args, path, extra, load or _default_load())
    except (Trouble, MeshError, OSError, ValueError) as error:
        return _complain(str(error))


def _default_load() -> Load:
    # Imported here: asking a running process needs none of the wiring.
    from meshgw.app.explain import load

    return load


def _complain(problem: str) -> int:
    sys.stderr.write(f"meshgw dtab: {problem}\n")
    return TROUBLE


def _show(node: Delegation, *, as_json: bool) -> int:
    text = json.dumps(delegation_to_json(node), indent=2) if as_json else "\n".join(render_delegation(node))
    sys.stdout.write(f"{text}\n")
    return BOUND if has_endpoints(node) else NOT_BOUND


# With a configuration file


def _run_offline(args: argparse.Namespace, path: Path, extra: Dtab, load: Load) -> int:
    async def main(reactor: Any) -> None:
        try:
            dtab, interpreter, start, stop = load(args.config, args.router, reactor)
            try:
                await maybeDeferred(start)
                live = with_addresses(interpreter.delegate(dtab + extra, path))
                state = await first_answer(reactor, live, args.timeout)
                if isinstance(state, Pending):  # show as much as is known: perhaps only addresses are missing
                    _complain(f"no complete answer within {args.timeout:g} s, still waiting for {state.waiting_for or 'a namer'}")
                    state = current(interpreter.delegate(dtab + extra, path))
                raise SystemExit(_show(_answer(path, state), as_json=args.json))
            finally:
                await maybeDeferred(stop)
        except (Trouble, MeshError, OSError, ValueError) as error:
            raise SystemExit(_complain(str(error))) from error

    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else TROUBLE
    return TROUBLE  # pragma: no cover - react always exits


def _answer(path: Path, state: State[Delegation]) -> Delegation:
    if isinstance(state, Ok):
        return state.value
    if isinstance(state, Failed):
        raise Trouble(f"{path.show()}: {state.error}")
    raise Trouble(f"{path.show()}: nothing is known about it yet")


async def first_answer(reactor: Any, live: Live[Delegation], timeout: float) -> State[Delegation]:
    """The first state that is not pending, or the last pending one after ``timeout`` seconds."""
    answered: Deferred[None] = Deferred()
    states: list[State[Delegation]] = []

    def notify(state: State[Delegation]) -> None:
        states.append(state)
        if not isinstance(state, Pending) and not answered.called:
            answered.callback(None)

    observation = live.observe(notify)
    answered.addTimeout(timeout, reactor)
    try:
        await answered
    except TwistedTimeout:
        pass
    finally:
        observation.close()
    return states[-1]


# With a running process


def _token(file: str) -> str:
    """The token in ``file``. Raises OSError, or :class:`Trouble`, which does not show what is there."""
    with open(file, encoding="latin-1") as stream:
        token = stream.read(LONGEST_TOKEN).strip()
    if not token or not all(" " < character <= "~" for character in token):
        raise Trouble(f"--token-file {file}: a token of printable ASCII characters without spaces is expected")
    return token


def ask_admin(admin: str, router: str | None, path: Path, extra: Dtab, timeout: float, token: str = "") -> Delegation:
    """The delegation as the process at the admin address sees it; ``token`` is shown there. Raises :class:`Trouble`."""
    base = admin if "://" in admin else f"http://{admin}"
    if urlsplit(base).scheme not in ("http", "https"):
        raise Trouble(f"--admin {admin}: expected an http or https address")
    label, dtab = _router(base, router, timeout, token)
    query = {"path": path.show(), "dtab": (dtab + extra).show(), "namespace": label}
    body = _get(f"{base.rstrip('/')}/delegator.json?{urlencode(query)}", timeout, token)
    try:
        return delegation_from_json(json.loads(body))
    except ValueError as error:
        raise Trouble(f"{base}/delegator.json: {error}") from error


def _router(base: str, label: str | None, timeout: float, token: str) -> tuple[str, Dtab]:
    """The router of that label, or the first one: its label, which is its protocol if it has none of its own, and its dtab.

    ``/delegator.json`` takes the whole dtab from the asker, so the router's own has to be had first.
    """
    url = f"{base.rstrip('/')}/config.json"
    try:
        routers = {str(router.get("label") or router["protocol"]): router for router in json.loads(_get(url, timeout, token))["routers"]}
        if label is None:
            label = next(iter(routers))
        if label not in routers:
            raise Trouble(f"{base} has no router {label!r}; it has {', '.join(routers)}")
        return label, Dtab.read(routers[label].get("dtab") or "")
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise Trouble(f"{url} does not show the routers and their dtabs: {error}") from error


def _get(url: str, timeout: float, token: str) -> bytes:
    request = Request(url)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # another host is not to learn it
    try:
        with urlopen(request, timeout=timeout) as response:
            return cast("bytes", response.read(LARGEST_ANSWER))
    except HTTPError as error:
        text = error.read(2000).decode("utf-8", "replace").strip()
        raise Trouble(f"{url}: answered {error.code}: {text or error.reason}") from error
    except (URLError, OSError) as error:
        raise Trouble(f"{url}: {getattr(error, 'reason', error)}") from error
