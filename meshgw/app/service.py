"""``twistd meshgw``: options, and the service tree of a data-plane process.

Source: linkerd-config spec 1.1; ARCHITECTURE.md section 7. The reactor is fetched here and nowhere else.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from random import Random, SystemRandom
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from meshgw.admin.api import RouterView
from meshgw.admin.security import AdminSecurity
from meshgw.admin.site import AdminSite
from meshgw.app.gateway import Gateway
from meshgw.app.identify_site import identify_site
from meshgw.app.ports import AdminPort
from meshgw.bind.explain import delegation_to_json
from meshgw.config.loader import LoadResult, load_file
from meshgw.config.models import AdminConfig, Config
from meshgw.kinds import Interpreter, Registry
from meshgw.telemetry.logs import LogLevels, log_observer

_log = Logger()


class Options(usage.Options):
    """Options of ``twistd meshgw``."""

    synopsis = "[options] [CONFIG]"
    longdesc = "A service mesh gateway. CONFIG is a Linkerd 1.x configuration file (YAML or JSON), or - for standard input."
    optParameters: ClassVar[list[list[str | None]]] = [
        ["config", "c", None, "Configuration file, or - for standard input."],
        ["log-level", None, "INFO", "Level of the root logger: ALL, TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL or OFF."],
        ["log-format", None, "text", "Form of log lines: text or json."],
    ]

    def parseArgs(self, *files: str) -> None:
        """The configuration may also be the only argument, as Linkerd has it."""
        if len(files) > 1 or (files and self["config"]):
            raise usage.UsageError("usage: twistd meshgw --config FILE: exactly one configuration file is expected")
        if files:
            self["config"] = files[0]

    def postOptions(self) -> None:
        """Load and check the configuration, so that a bad one ends the command with all its problems."""
        if self["config"] is None:
            raise usage.UsageError("usage: twistd meshgw --config FILE: exactly one configuration file is expected")
        if self["log-format"] not in ("text", "json"):
            raise usage.UsageError(f"--log-format {self['log-format']}: expected text or json")
        result = load_file(self["config"], Registry())
        self["loaded"] = result
        if result.config is None:
            raise usage.UsageError("\n".join(["the configuration cannot be used", *(problem.show() for problem in result.problems)]))
        _install_reactor()


def _install_reactor() -> None:
    """Use our reactor unless ``twistd --reactor`` or somebody else chose one already."""
    if "twisted.internet.reactor" not in sys.modules:
        try:
            from meshgw.core.reactor import install
        except ImportError:
            return  # no epoll on this system: the default reactor serves, slower
        install()


class _View:
    """What admin sees of the gateway (``admin.api.GatewayView``)."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.default_interpreter: Interpreter = gateway.names.plain
        self.telemeters = [telemeter for telemeter in gateway.telemeters if hasattr(telemeter, "render")]
        self.config_json, self.snapshot, self.bound_names = gateway.config_json, gateway.snapshot, gateway.bound_names
        self.client_state, self.server_info, self.shutdown = gateway.client_state, gateway.server_info, gateway.shutdown

    @property
    def routers(self) -> Mapping[str, RouterView]:
        """The routers by label."""
        return {label: RouterView(label, router.config.dtab, router.interpreter) for label, router in self._gateway.routers.items()}


class MeshService(MultiService):
    """The whole process: admin around the gateway, so that health checks work while requests drain."""

    def __init__(self, gateway: Gateway, admin: MultiService) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._gateway, self._admin = gateway, admin
        self.observer: ILogObserver | None = None
        for child in (admin, gateway):
            child.setServiceParent(self)  # type: ignore[no-untyped-call]

    def setServiceParent(self, parent: Any) -> None:
        """Attached by twistd to its application, give that our log observer; twistd begins logging right after."""
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)  # type: ignore[no-untyped-call]
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Bind the routers' ports; twistd drops privileges after this."""
        self._gateway.listen()
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def shutdown(self) -> None:
        """End the process gracefully, within the configured grace period."""
        self._gateway.shutdown(None)

    def stopService(self) -> Deferred[None]:
        """Drain first, then stop answering on the admin port."""
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._gateway.stopService()
        await maybeDeferred(self._admin.stopService)


def admin_service(config: AdminConfig, gateway: Gateway, levels: LogLevels, reactor: Any) -> MultiService:
    """The admin server and the identifier listener, not listening yet."""
    security = config.security
    decided = AdminSecurity()
    if security is not None:
        decided = AdminSecurity(
            ui_enabled=security.ui_enabled,
            control_enabled=security.control_enabled,
            diagnostics_enabled=security.diagnostics_enabled,
            whitelist=[pattern.pattern for pattern in security.path_whitelist],
            blacklist=[pattern.pattern for pattern in security.path_blacklist],
        )
    site = AdminSite(_View(gateway), security=decided, levels=levels, as_json=delegation_to_json, reactor=reactor)
    services = MultiService()  # type: ignore[no-untyped-call]
    AdminPort(reactor, config.ip, config.port, config.socket_options, site).setServiceParent(services)  # type: ignore[no-untyped-call]
    if config.http_identifier_port is not None:
        identifiers = {label: router.identifier for label, router in gateway.routers.items()}
        AdminPort(reactor, config.ip, config.http_identifier_port, config.socket_options, identify_site(identifiers)).setServiceParent(
            services
        )  # type: ignore[no-untyped-call]
    return services


def build(config: Config, reactor: Any, levels: LogLevels) -> MeshService:
    """The service tree of a process."""
    # seeded by the system, but not asking it for every draw: a system call each would show on the request path
    gateway = Gateway(config, reactor, Random(SystemRandom().getrandbits(256)))
    return MeshService(gateway, admin_service(config.admin, gateway, levels, reactor))


def stop_on_signals(reactor: Any, service: MeshService) -> None:
    """Let SIGTERM and SIGINT end the process as ``POST /admin/shutdown`` does, with status 0. To be called while the reactor runs.

    Twisted's own handlers would let the drained process die of the signal, which a supervisor takes for a crash.
    """

    def received(number: int, _frame: object) -> None:
        _log.info("received {signal}, shutting down", signal=signal.Signals(number).name)
        reactor.callFromThread(service.shutdown)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, received)


def makeService(options: Options) -> MeshService:
    """Called by twistd."""
    from twisted.internet import reactor

    result: LoadResult = options["loaded"]
    assert result.config is not None
    levels = LogLevels(options["log-level"])
    service = build(result.config, reactor, levels)
    stream = _log_stream(options.parent or {})
    if stream is not None:
        service.observer = log_observer(stream, levels, as_json=options["log-format"] == "json")
    for problem in result.problems:
        _log.warn("{problem}", problem=problem.show())
    reactor.callWhenRunning(stop_on_signals, reactor, service)
    return service


def _log_stream(twistd: Mapping[str, Any]) -> Any:
    """Where twistd's own options send the log; None when they choose an observer of their own (``--syslog``, ``--logger``)."""
    if twistd.get("syslog") or twistd.get("logger"):
        return None
    file = twistd.get("logfile")
    if file == "-" or (file is None and twistd.get("nodaemon", True)):
        return sys.stdout
    return LogFile.fromFullPath(file or "twistd.log")  # type: ignore[no-untyped-call]
