"""The process that was started: it binds the sockets, serves admin, and runs the routers itself or lets workers do so.

Source: ARCHITECTURE.md section 7. A single process serves on its own until the configuration is first read anew; then a worker takes the
sockets over and this process goes on as its master, so that its pid, which supervisors and containers know, stays.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from meshgw.admin.errors import ReloadUnderWay
from meshgw.app.admin_service import AdminService
from meshgw.app.announcing import Announcements
from meshgw.app.diagnosis import Diagnosis
from meshgw.app.gateway import Gateway
from meshgw.app.job import Accepted, Settings, drop_privileges, needs_master
from meshgw.app.joined import JoinedTelemetry
from meshgw.app.plane import LocalPlane, Plane
from meshgw.app.sockets import Sockets, places
from meshgw.config.loader import LoadResult, load_file
from meshgw.config.models import Config
from meshgw.core.interfaces import LocalAddresses
from meshgw.core.live import failed
from meshgw.core.logger import make_logger
from meshgw.core.slices import Slices
from meshgw.core.timers import Spawner
from meshgw.errors import MeshError
from meshgw.kinds import Registry, Runtime
from meshgw.telemetry.logs import LogLevels
from meshgw.telemetry.metrics import Metrics, Snapshot, merging
from meshgw.telemetry.process import add_process_metrics
from meshgw.telemetry.spans import TracingSwitch
from meshgw.telemetry.stalls import Stalls

if TYPE_CHECKING:
    from meshgw.app.supervisor import Supervisor

STDIN = "standard input"
_log = make_logger()


class MeshService(MultiService):
    """The whole process, as twistd runs it. Admin starts first and ends last, so that health checks work while requests drain."""

    def __init__(self, loaded: LoadResult, settings: Settings, levels: LogLevels) -> None:
        """``loaded`` has a configuration."""
        super().__init__()  # type: ignore[no-untyped-call]
        assert loaded.config is not None
        # absolute, since a daemon may change its directory before it reads the file again
        file = loaded.file if loaded.file == STDIN else os.path.abspath(loaded.file)
        self._accepted = Accepted(config=loaded.config, text=loaded.text, file=file, remarks=_remarks(loaded))
        self._settings, self._levels, self._reactor = settings, levels, settings.reactor
        self._slices = Slices(settings.reactor)
        self.observer: ILogObserver | None = None
        self.metrics = Metrics()
        """Those of the process itself, apart from its routers'."""
        self._started_at = time.time()  # noqa: TID251 - wall-clock time is what operators are shown
        self._grace: float | None = None
        self._is_ending = self._is_reloading = self._reload_again = False
        self._reloads, self._refusals = self.metrics.counter("reload", "success"), self.metrics.counter("reload", "failures")
        self._tracing = TracingSwitch()
        self._stalls = Stalls(self._reactor)
        self._diagnosis = Diagnosis(self._reactor, None, self._stalls, self._slices)
        self._sockets = Sockets({}, {})
        self._announcements = Announcements(self._make_runtime(), LocalAddresses(self._reactor))
        self._joined = JoinedTelemetry(self._make_runtime(), self.snapshot)
        self._admin: AdminService | None = None
        self._leaving: dict[Gateway, Deferred[None]] = {}
        self._supervisor: Supervisor | None = None
        self._gateway: Gateway | None = None
        self._plane: Plane = self._make_supervisor() if needs_master(loaded.config) else self._make_gateway(loaded.config)

    def _make_supervisor(self) -> Supervisor:
        from meshgw.app.supervisor import Supervisor  # with AMP and more, which a single process can do without

        self._supervisor = Supervisor(self._settings, self._levels, self.metrics, self._tracing)
        return self._supervisor

    def _make_gateway(self, config: Config) -> LocalPlane:
        settings = self._settings
        self._gateway = Gateway(
            config,
            self._reactor,
            settings.random,
            tracing=self._tracing,
            histogram_interval=settings.histogram_interval,
            started_at=self._started_at,
        )
        return LocalPlane(self._gateway, self._levels, self._reactor)

    @property
    def plane(self) -> Plane:
        """What serves the routers at present."""
        return self._plane

    @property
    def announcements(self) -> Announcements:
        """What is told others of the servers."""
        return self._announcements

    @property
    def diagnosis(self) -> Diagnosis:
        """What this process tells of itself where others serve."""
        return self._diagnosis

    @property
    def is_ending(self) -> bool:
        """Whether the process drains."""
        return self._is_ending

    def setServiceParent(self, parent: Any) -> None:
        """Attached by twistd to its application, give that our log observer; twistd begins logging right after."""
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)  # type: ignore[no-untyped-call]
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    # --- start

    def privilegedStartService(self) -> None:
        """Bind every port and read what needs the rights of this moment; twistd drops privileges after this. Raises SystemExit."""
        # before anybody can know that there is a process to be told; what comes before the reactor runs is done then
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload_on_signal))
        try:
            self._sockets = Sockets.open(places(self._accepted.config))
            self._admin = self._make_admin(self._accepted, self._sockets)
            if self._gateway is not None:
                self._gateway.listen(self._sockets.take)
        except (OSError, MeshError) as error:
            _log.critical("meshgw cannot start: {reason}", reason=str(error))
            raise SystemExit(1) from error
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Serve admin, then the routers."""
        super().startService()  # type: ignore[no-untyped-call]
        assert self._admin is not None
        self._admin.startService()
        if self._supervisor is not None:
            self._be_master()
            self._is_reloading = True  # what is asked meanwhile comes after it
            starting = Deferred.fromCoroutine(self._supervisor.start(self._accepted, self._sockets, is_first=True))
            starting.addCallbacks(self._workers_serve, self._not_started).addCallback(self._reload_ended)
        if self._gateway is not None:
            self._gateway.startService()
            user = self._accepted.config.user
            if user is not None and os.geteuid() == 0:
                drop_privileges(user)
            self._announce()

    def _make_runtime(self) -> Runtime:
        return Runtime(
            reactor=self._reactor,
            metrics=self.metrics,
            random=self._settings.random,
            spawn=Spawner().spawn,
            resolve=lambda _host, _port: failed(MeshError("names are not resolved here")),
        )

    def _make_admin(self, accepted: Accepted, sockets: Sockets) -> AdminService:
        runtime = self._make_runtime()
        return AdminService(accepted.config, self, sockets, runtime, self._started_at, self._admin, accepted.remarks)

    def _announce(self, _started: object = None) -> None:
        """Tell others where the servers of the configuration at work are."""
        if not self._is_ending:
            self.announcements.update(self._accepted.config, self._sockets.address)

    def _workers_serve(self, _started: None) -> Deferred[None]:
        self._announce()
        return Deferred.fromCoroutine(self._tell_joined())

    async def _tell_joined(self) -> None:
        if not self._is_ending:
            await self._joined.update(self._accepted.config)

    def _be_master(self) -> None:
        self._stalls.start()
        add_process_metrics(self.metrics, time.time, self._started_at)  # noqa: TID251 - as above

    def _not_started(self, failure: Failure) -> None:
        if self._is_ending:
            return
        for line in failure.getErrorMessage().splitlines():
            _log.critical("the workers could not start: {reason}", reason=line)
        atexit.register(_fail)  # after twistd has cleaned up, which knows no exit status
        self.shutdown()

    # --- reload

    async def reload(self) -> Sequence[str]:
        """Read the configuration file again; if it is good, workers on the same sockets take over. The problems if it is not.

        Raises :class:`ReloadUnderWay`.
        """
        if self._is_reloading:
            raise ReloadUnderWay
        self._is_reloading = True
        try:
            problems = await self._reload()
        finally:
            self._reload_ended()
        (self._refusals if problems else self._reloads).incr()
        for problem in problems:
            _log.error("the configuration is not reloaded: {problem}", problem=problem)
        if not problems:
            _log.info("the configuration is reloaded")
        return problems

    async def _reload(self) -> Sequence[str]:
        file = self._accepted.file
        if file == STDIN:
            return ["the configuration came from standard input, which cannot be read again"]
        # in a thread: a large file takes a while, and requests go on
        loaded = await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), load_file, file, Registry())
        if loaded.config is None:
            return [problem.show() for problem in loaded.problems]
        if self._is_ending:
            return ["the process is ending"]
        accepted = Accepted(config=loaded.config, text=loaded.text, file=file, remarks=_remarks(loaded))
        try:
            sockets = Sockets.open(places(accepted.config), kept=self._sockets)
        except OSError as error:
            return [str(error)]
        admin = None
        try:
            admin = self._make_admin(accepted, sockets)
            await self._take_over(accepted, sockets)
        except (MeshError, OSError) as error:
            sockets.close()
            if admin is not None:
                await maybeDeferred(admin.stopService)
            return str(error).splitlines()
        self._sockets.close()
        self._sockets, self._accepted = sockets, accepted
        self._announce()
        former, self._admin = self._admin, admin
        admin.startService()
        if former is not None:
            await maybeDeferred(former.stopService)
        await self._tell_joined()
        return []

    async def _take_over(self, accepted: Accepted, sockets: Sockets) -> None:
        """Let workers serve ``accepted``. Raises MeshError; then all is as before."""
        supervisor = self._supervisor or self._make_supervisor()  # from now on, so that the end of this process ends it too
        await supervisor.start(accepted, sockets, is_first=False)
        gateway, self._gateway, self._plane = self._gateway, None, supervisor
        if gateway is not None:
            self._be_master()
            gateway.metrics.remove("jvm")  # it is this very process, which tells of itself from now on
            gateway.grace = accepted.config.admin.shutdown_grace_ms / 1000
            left = self._leaving[gateway] = gateway.retire()
            left.addBoth(self._left, gateway, supervisor)

    def _left(self, result: object, gateway: Gateway, supervisor: Supervisor) -> None:
        if isinstance(result, Failure):
            _log.failure("the routers of this process could not end gracefully", failure=result)
        del self._leaving[gateway]
        supervisor.retire(gateway.snapshot())

    def reload_on_signal(self) -> None:
        """SIGHUP: as :meth:`reload`; one that comes while another is under way is done after it, as the file may have changed since."""
        if self._is_reloading:
            self._reload_again = True
        elif not self._is_ending:
            Deferred.fromCoroutine(self.reload()).addErrback(self._not_reloaded)

    def _not_reloaded(self, failure: Failure) -> None:
        _log.failure("the configuration could not be reloaded", failure=failure)

    def _reload_ended(self, _result: object = None) -> None:
        self._is_reloading = False
        if self._reload_again:
            self._reload_again = False
            self._reactor.callLater(0, self.reload_on_signal)

    # --- what admin asks

    async def snapshot(self, below: str = "") -> Snapshot:
        """All metrics, or at least those ``below`` a path, merged over the processes."""
        while True:
            plane, gateways = self._plane, list(self._leaving)
            serving = await plane.snapshot(below)
            leaving = [await self._slices.run(gateway.reading(below)) for gateway in gateways]
            if plane is self._plane and gateways == list(self._leaving):  # else what somebody counted is missing, or there twice
                return await self._slices.run(merging([serving, self.metrics.snapshot(), *leaving]))

    def shutdown(self, grace_seconds: float | None = None) -> None:
        """End the process gracefully, within ``grace_seconds`` or the configured time; asked again, that goes on as it is."""
        if self._is_ending:
            return
        self._is_ending, self._grace = True, grace_seconds
        self._reactor.callLater(0, self._reactor.stop)

    # --- end

    def stopService(self) -> Deferred[None]:
        """Drain first, then stop answering on the admin port."""
        self.running = 0
        self._is_ending = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        grace = self._grace if self._grace is not None else self._accepted.config.admin.shutdown_grace_ms / 1000
        await self.announcements.withdraw()  # first, so that nobody is sent here who would be refused
        await self._joined.stop()
        self._sockets.close()
        waiting = []
        for gateway, left in self._leaving.items():
            gateway.hurry(grace)
            waiting.append(left)
        if self._gateway is not None:
            self._gateway.grace = grace
            waiting.append(self._gateway.stopService())
        if self._supervisor is not None:
            waiting.append(Deferred.fromCoroutine(self._supervisor.stop(grace)))
        await DeferredList(waiting)
        self._stalls.stop()
        if self._admin is not None:
            await maybeDeferred(self._admin.stopService)
        await maybeDeferred(super().stopService)


def _remarks(loaded: LoadResult) -> list[str]:
    return [problem.show() for problem in loaded.problems]


def take_signals(reactor: Any, service: MeshService) -> None:
    """SIGTERM and SIGINT end the process as ``POST /admin/shutdown`` does, with status 0.

    To be called while the reactor runs. Twisted's own handlers would let the drained process die of the signal, which a supervisor takes
    for a crash.
    """

    def end(number: int, _frame: object) -> None:
        _log.info("received {signal}, shutting down", signal=signal.Signals(number).name)
        reactor.callFromThread(service.shutdown)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _fail() -> None:
    """End with status 1."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
