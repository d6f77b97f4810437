"""The admin server of a configuration: what it shows, who may use it, and where it listens.

Source: linkerd-config spec 2.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.server import Site

from meshgw import __version__
from meshgw.admin.api import RouterView
from meshgw.admin.site import admin_site
from meshgw.app.announcing import STATE_PATH, Announcements
from meshgw.app.diagnosis import OF_PROCESSES, Diagnosis
from meshgw.app.identify_site import identify_site
from meshgw.app.plane import PATIENCE, LocalPlane, Plane
from meshgw.app.ports import AdminPort
from meshgw.app.sockets import ADMIN, IDENTIFIER, Sockets, router_label
from meshgw.config.models import AdminConfig, Config
from meshgw.config.plain import config_to_json
from meshgw.config.tls import ServerTls
from meshgw.core.logger import make_logger
from meshgw.errors import MeshError
from meshgw.kinds import Runtime
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Snapshot
from meshgw.telemetry.recent_requests import KIND as RECENT_REQUESTS
from meshgw.telemetry.recent_requests import newest_first

if TYPE_CHECKING:
    from meshgw.app.tls import ListenerTls

_log = make_logger()

MASTER = "master"
"""The name of the process that serves admin, where others serve the routers."""


class Host(Protocol):
    """The process, as far as admin acts on it."""

    @property
    def plane(self) -> Plane:
        """What serves at present."""
        ...

    @property
    def announcements(self) -> Announcements:
        """What is told others of the servers."""
        ...

    @property
    def diagnosis(self) -> Diagnosis:
        """What this process tells of itself where others serve."""
        ...

    @property
    def is_ending(self) -> bool:
        """Whether the process drains."""
        ...

    async def snapshot(self, below: str = "") -> Snapshot:
        """All metrics, or at least those ``below`` a path, merged over the processes."""
        ...

    def shutdown(self, grace_seconds: float | None = None) -> None:
        """Begin the graceful end."""
        ...

    async def reload(self) -> Sequence[str]:
        """Put the configuration file to use as it is now; the problems that prevent it."""
        ...


def server_info(started_at: float, now: float) -> dict[str, Any]:
    """Name, version, and how long the process has been up; both times in seconds since the epoch."""
    return {
        "name": "meshgw",
        "version": __version__,
        "python": platform.python_version(),
        "start_time": time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(started_at)),
        "uptime": int((now - started_at) * 1000),
    }


def _is_cancelled(failure: Failure) -> dict[str, Any]:
    """Nothing, if that is what it fails with."""
    failure.trap(CancelledError)  # type: ignore[no-untyped-call]  # Twisted has no annotations here
    return {}


class View:
    """What admin shows (``admin.api.GatewayView``): the configuration as it was loaded, and whatever serves it now."""

    def __init__(self, config: Config, host: Host, runtime: Runtime, started_at: float, remarks: Sequence[str] = ()) -> None:
        self.config, self.remarks = config, remarks
        self._config, self._host, self._started_at = config, host, started_at
        self.shutdown, self.reload = host.shutdown, host.reload
        telemeters = [chosen.kind.build(chosen.config, runtime) for chosen in config.telemetry]
        self.telemeters = [telemeter for telemeter in telemeters if hasattr(telemeter, "render")]

    @property
    def routers(self) -> Mapping[str, RouterView]:
        """The routers by label."""
        return {
            router_label(chosen): RouterView(router_label(chosen), chosen.config.dtab, getattr(chosen.config, "access_control", None))
            for chosen in self._config.routers
        }

    def config_json(self) -> str:
        """The parsed configuration as JSON text, without secrets."""
        return json.dumps(config_to_json(self._config))

    def server_info(self) -> Mapping[str, Any]:
        """Name, version, and how long the process has been up."""
        return server_info(self._started_at, time.time())  # noqa: TID251 - wall-clock time is what operators are shown

    @property
    def is_ending(self) -> bool:
        """Whether the process drains."""
        return self._host.is_ending

    def groups(self) -> Sequence[Sequence[str]]:
        """The names of the processes that serve the same routers."""
        return self._host.plane.groups()

    async def diagnose(self, word: str, argument: Any = None, *, seconds: float = PATIENCE) -> Mapping[str, Any]:
        """What the processes answer, this one included where the question is not about routers."""
        own: Deferred[dict[str, Any]] | None = None
        if word in OF_PROCESSES and not isinstance(self._host.plane, LocalPlane):
            own = Deferred.fromCoroutine(self._master(word, argument))  # at the same time: a profile takes a while
        try:
            found = dict(await self._host.plane.diagnose(word, argument, seconds=seconds))
            return found if own is None else found | await own
        except CancelledError:
            if own is not None:
                own.addErrback(_is_cancelled)
                own.cancel()
            raise

    async def _master(self, word: str, argument: Any) -> dict[str, Any]:
        try:
            return {MASTER: await self._host.diagnosis.answer(word, argument)}
        except MeshError as error:
            return {MASTER: {"error": str(error)}}

    def announcements(self) -> Mapping[str, Any]:
        """By announced name and address, whether each is announced."""
        return self._host.announcements.describe()

    async def snapshot(self, below: str = "") -> Snapshot:
        """All metrics, or at least those ``below`` a path, merged over the processes."""
        return await self._host.snapshot(below)

    async def bound_names(self) -> Sequence[str]:
        """The names that enumerating namers know."""
        return await self._host.plane.bound_names()

    async def client_state(self) -> Mapping[str, Any]:
        """The clients of all routers with their addresses."""
        return await self._host.plane.client_state()

    async def recent_requests(self) -> Sequence[Mapping[str, Any]] | None:
        """The latest traced requests over all processes, the newest first; None if the configuration keeps none."""
        kept = [chosen.config.capacity for chosen in self._config.telemetry if chosen.kind is RECENT_REQUESTS]
        return newest_first(await self._host.plane.recent_requests(), max(kept)) if kept else None

    async def described(self) -> Sequence[str]:
        """The paths where namers, interpreters, identifiers and announcers describe themselves."""
        described = await self._host.plane.described()
        return [*described, STATE_PATH] if self._host.announcements.describe() else described

    async def description(self, path: str) -> Mapping[str, Any]:
        """What is shown at one of them."""
        if path == STATE_PATH:
            return self._host.announcements.describe()
        return await self._host.plane.description(path)

    async def loggers(self) -> Sequence[tuple[str, str]]:
        """The known loggers with their level."""
        return await self._host.plane.loggers()

    async def set_level(self, logger: str, level: str) -> None:
        """Set the level of a logger."""
        await self._host.plane.set_level(logger, level)

    async def tracing(self) -> bool:
        """Whether requests are traced."""
        return await self._host.plane.tracing()

    async def set_tracing(self, enabled: bool) -> None:
        """Trace requests from now on, or no more."""
        await self._host.plane.set_tracing(enabled)

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        """How ``path`` resolves."""
        return await self._host.plane.delegate(namespace, dtab, path)


class AdminService(MultiService):
    """The admin server and the identifier listener, on bound sockets."""

    def __init__(
        self,
        config: Config,
        host: Host,
        sockets: Sockets,
        runtime: Runtime,
        started_at: float,
        former: AdminService | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        """``former`` is the service that this one follows when it is started, ``remarks`` were made when the configuration was read.

        Raises MeshError for a bad file of tokens or TLS.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        admin = config.admin
        self._tls = None if admin.tls is None else _tls(admin.tls, runtime, f"the admin server, {admin.ip} port {admin.port}")
        failed = runtime.metrics.counter("admin", "authentication_failures").incr
        view = View(config, host, runtime, started_at, remarks)
        own = admin_site(admin, view, runtime.reactor, own_name=socket.gethostname(), failed=failed)
        self._resource = own.resource
        # one site for all of them, so that connections kept open over a reload are held to what the new configuration says
        self._site: Site = own if former is None else former._site
        self._port = self._add(runtime, sockets.take(ADMIN), admin, self._site)
        if admin.http_identifier_port is not None:
            self._add(runtime, sockets.take(IDENTIFIER), admin, identify_site(lambda head: host.plane.identify(head)))

    def _add(self, runtime: Runtime, sock: socket.socket, admin: AdminConfig, site: Site) -> AdminPort:
        factory: Any = site
        if self._tls is not None:
            from meshgw.app.admin_tls import TlsSite  # see _tls

            factory = TlsSite(site, self._tls, runtime.reactor)
        port = AdminPort(runtime.reactor, sock, admin.socket_options, factory)
        self.addService(port)  # type: ignore[no-untyped-call]
        return port

    def startService(self) -> None:
        """Serve."""
        self._site.resource = self._resource
        if self._tls is not None:
            self._tls.start()
        super().startService()  # type: ignore[no-untyped-call]
        host, number = self._port.address
        scheme, shown = "http" if self._tls is None else "https", f"[{host}]" if ":" in host else host
        _log.info("admin serves on {scheme}://{host}:{port}/", scheme=scheme, host=shown, port=number)

    def stopService(self) -> Deferred[Any]:
        """Stop listening; connections under way go on."""
        if self._tls is not None and self.running:
            self._tls.stop()
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        return stopped


def _tls(config: ServerTls, runtime: Runtime, address: str) -> ListenerTls:
    """The TLS of both listeners, its files read. Raises :class:`meshgw.core.tls.TlsConfigError`."""
    from meshgw.app.admin_tls import ALPN  # some megabytes that an admin server without TLS need not have
    from meshgw.app.tls import ListenerTls

    tls = ListenerTls(config, reactor=runtime.reactor, clock=runtime.reactor.seconds, address=address, alpn=ALPN)
    tls.load()
    tls.count(runtime.metrics.scope("admin"))
    return tls
