"""A worker process: the routers of one group, on sockets that its master bound, without an admin server of its own.

Started by ``app.supervisor`` as ``python -m meshgw.app.worker``. It learns all else from its master over the control channel, answers
the master's questions there, and ends when the channel does: a worker without a master could be neither seen nor stopped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from random import Random, SystemRandom
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from meshgw.admin.errors import Relayed
from meshgw.app.control import Channel
from meshgw.app.gateway import Gateway
from meshgw.app.job import LOGGERS, QUIET, Job, drop_privileges
from meshgw.app.plane import LocalPlane, answering
from meshgw.app.sockets import inherited, router_label
from meshgw.config.loader import load
from meshgw.config.models import Config
from meshgw.core.logger import make_logger
from meshgw.errors import MeshError
from meshgw.kinds import Registry
from meshgw.server.shares import Shares
from meshgw.telemetry.logs import LogLevels, start_logging, take_standard_logs
from meshgw.telemetry.spans import TracingSwitch
from meshgw.telemetry.transfer import to_plain

FAREWELL_SECONDS = 2.0
_log = make_logger()


class Worker:
    """Does its master's bidding."""

    def __init__(self, reactor: Any, levels: LogLevels, histogram_interval: float) -> None:
        self._reactor, self._levels, self._histogram_interval = reactor, levels, histogram_interval
        self._gateway: Gateway | None = None
        self._is_ending = False
        self.channel = Channel("the master", self.answer, reactor, self.orphaned)

    async def answer(self, word: str, argument: Any) -> Any:
        """Answers the master's questions (:data:`meshgw.app.control.Answering`)."""
        if word == "begin":
            self._begin(Job(**argument))
            return os.getpid()
        if self._gateway is None:
            raise Relayed(code=503, text="this worker serves nothing yet")
        if word in ("stop", "retire"):
            self.end(argument, close_idle=word == "stop")
            return None
        return await self._answers(word, argument)

    def _begin(self, job: Job) -> None:
        result = load(job.text, job.file, Registry())
        if result.config is None:
            raise Relayed(code=422, text="\n".join(problem.show() for problem in result.problems))
        for logger, level in job.levels.items():
            self._levels.preset(logger, level)
        fd, slots, own = job.shares
        shares = Shares(fd, slots, own)
        os.close(fd)
        routers = tuple(chosen for chosen in result.config.routers if router_label(chosen) in job.routers)
        config: Config = attrs.evolve(result.config, routers=routers)
        random = Random(SystemRandom().getrandbits(256))
        tracing = TracingSwitch(job.tracing)
        gateway = Gateway(
            config,
            self._reactor,
            random,
            shares if shares.is_enough else None,
            is_first=job.is_first,
            tracing=tracing,
            histogram_interval=self._histogram_interval,
        )
        gateway.listen(lambda name: inherited(job.sockets[name]))
        try:
            gateway.startService()
            if job.user is not None and os.geteuid() == 0:
                drop_privileges(job.user)
        except Exception as error:
            raise Relayed(code=500, text=str(error)) from error
        self._gateway = gateway
        self._answers = answering(LocalPlane(gateway, self._levels, self._reactor))

    def end(self, grace: float | None, *, close_idle: bool) -> None:
        """Finish what is under way and end the process; asked again with ``close_idle``, that is sped up."""
        if self._is_ending:
            if close_idle and self._gateway is not None:
                self._gateway.hurry(grace)
        else:
            self._is_ending = True
            Deferred.fromCoroutine(self._end(grace, close_idle=close_idle)).addBoth(self._ended)

    async def _end(self, grace: float | None, *, close_idle: bool) -> None:
        gateway = self._gateway
        if gateway is None:
            return
        if grace is not None:
            gateway.grace = grace
        await (gateway.stopService() if close_idle else gateway.retire())
        # what was counted must not be lost with the process, or the sum over all would go backwards
        await self.channel.ask("farewell", to_plain(gateway.snapshot()), seconds=FAREWELL_SECONDS)

    def _ended(self, failure: Any) -> None:
        if failure is not None and not failure.check(MeshError):  # the master may be gone, or too busy to listen
            _log.failure("could not end gracefully", failure=failure)
        self._reactor.stop()

    def orphaned(self) -> None:
        """The master is gone."""
        if not self._is_ending:
            _log.error("the master process is gone; this worker finishes what is under way and ends")
        self.end(None, close_idle=True)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="meshgw.app.worker", description="A worker of `twistd meshgw`; not to be started by hand.")
    parser.add_argument("--name", required=True, help="name in messages")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the control channel")
    parser.add_argument("--reactor", required=True, help="module whose install() installs the reactor")
    parser.add_argument("--log-level", required=True)
    parser.add_argument("--log-format", required=True, choices=("text", "json"))
    parser.add_argument("--histogram-interval", type=float, required=True)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Run a worker until its master tells it to end."""
    given = _arguments(words)
    importlib.import_module(given.reactor).install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    levels = LogLevels(given.log_level, known=LOGGERS)
    levels.preset(*QUIET)
    levels.govern()
    take_standard_logs(levels)
    start_logging(sys.stdout, levels, as_json=given.log_format == "json")
    worker = Worker(reactor, levels, given.histogram_interval)
    control = socket.socket(fileno=given.control)
    control.setblocking(False)
    factory = Factory.forProtocol(lambda: worker.channel)
    reactor.adoptStreamConnection(control.fileno(), control.family, factory)
    control.close()  # the reactor has its own duplicate
    reactor.callWhenRunning(_take_signals, reactor, worker)
    reactor.run()


def _take_signals(reactor: Any, worker: Worker) -> None:
    """SIGTERM ends gracefully; what a terminal sends to all processes of a group is the master's business."""
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(worker.end, None, close_idle=True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


if __name__ == "__main__":
    main(sys.argv[1:])
