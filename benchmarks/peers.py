"""The proxies that can be compared: their names, versions, and what starts them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import attrs

import native
import pythonic
from environments import environment, envoy_program
from native import Place
from support import servers
from support.processes import Process, ProcessFailed


@attrs.frozen(kw_only=True)
class Peer:
    """One proxy: its name, its version (given the interpreter that meshgw runs in), and what makes its process, not started."""

    name: str
    version: Callable[[str], str]
    make: Callable[[Place], Process]


@attrs.frozen(kw_only=True)
class Participant:
    """A proxy with so many workers, written `nginx:2`, or `nginx` for one."""

    peer: Peer
    workers: int

    @property
    def name(self) -> str:
        """How it was asked for."""
        return self.peer.name if self.workers == 1 else f"{self.peer.name}:{self.workers}"

    @classmethod
    def read(cls, text: str) -> Participant:
        """Raises ValueError when there is no such proxy, or it cannot have so many workers."""
        name, _, workers = text.strip().partition(":")
        if name not in KNOWN:
            raise ValueError(f"unknown proxy {name}; known: {', '.join(KNOWN)}")
        if workers not in ("", "1") and name in SINGLE:
            raise ValueError(f"{name} is only measured with one worker")
        return cls(peer=KNOWN[name], workers=int(workers or 1))


def _first_match(pattern: str, *command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ProcessFailed(f"cannot run {command[0]}: {error}; install it (see .ci/packages)") from error
    found = re.search(pattern, ran.stdout + ran.stderr)
    return found.group(1) if found else "?"


def _meshgw_version(python: str) -> str:
    return _first_match(r"^(\S+)", python, "-c", "import meshgw; print(meshgw.__version__)")


def _package_version(name: str) -> str:
    asked = f"from importlib.metadata import version; print(version({name!r}))"
    return _first_match(r"^(\S+)", str(environment(name)), "-c", asked)


def _peers(*peers: Peer) -> dict[str, Peer]:
    return {peer.name: peer for peer in peers}


NATIVE = _peers(
    Peer(name="nginx", version=lambda _python: _first_match(r"nginx/(\S+)", servers.tool("nginx"), "-v"), make=native.nginx),
    Peer(name="haproxy", version=lambda _python: _first_match(r"version (\S+)", servers.tool("haproxy"), "-v"), make=native.haproxy),
    Peer(name="envoy", version=lambda _python: _first_match(r"/(\d+\.\d+\.\d+)/", str(envoy_program()), "--version"), make=native.envoy),
)

PYTHONIC = _peers(
    Peer(
        name="twisted.web",
        version=lambda python: _first_match(r"^(\S+)", python, "-c", "import twisted; print(twisted.__version__)"),
        make=pythonic.twisted_web,
    ),
    Peer(name="mitmproxy", version=lambda _python: _package_version("mitmproxy"), make=pythonic.mitmproxy),
    Peer(name="proxy.py", version=lambda _python: _package_version("proxy.py"), make=pythonic.proxy_py),
)

OURS = _peers(Peer(name="meshgw", version=_meshgw_version, make=pythonic.meshgw))

VARIANTS = _peers(
    Peer(name="meshgw-off", version=_meshgw_version, make=pythonic.meshgw_off),
    Peer(name="meshgw-full", version=_meshgw_version, make=pythonic.meshgw_full),
    Peer(name="meshgw-few", version=_meshgw_version, make=pythonic.meshgw_few),
    Peer(name="meshgw-many", version=_meshgw_version, make=pythonic.meshgw_many),
)
"""The gateway with what can be off of its resilience off, with everything on, and with ten or ten thousand endpoints."""

PEERS = NATIVE | OURS
KNOWN = PEERS | PYTHONIC | VARIANTS
SINGLE = {*PYTHONIC, "meshgw-few", "meshgw-many"}
