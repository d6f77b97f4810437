"""The scripted Kubernetes API server as a process beside a gateway, and what a test does with it."""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

from fakes.kubernetes import Json
from support.processes import LOOPBACK, Process, Running, free_port
from support.servers import ROOT


class FakeKubernetes:
    """One server on ``port``; it may be stopped and started again, and has then forgotten everything."""

    def __init__(self, running: Running, *, tls: tuple[Path, Path] | None = None) -> None:
        """``tls``: files of its certificate and key."""
        self.port, self._running, self._tls = free_port(), running, tls
        self.process = self.start()

    def start(self) -> Process:
        """Start it, and wait until it answers."""
        paths = os.pathsep.join(filter(None, (str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", ""))))
        argv = [sys.executable, "-m", "fakes.kubernetes_server", str(self.port), *map(str, self._tls or ())]
        process = Process("kubernetes", argv, self._running.directory, port=self.port, env={"PYTHONPATH": paths})
        self.process = self._running.add(process)
        return process

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def control(self, **calls: Any) -> Any:
        """Call methods of :class:`fakes.kubernetes.Server`, or ``set`` attributes."""
        request = urllib.request.Request(f"http{'s' if self._tls else ''}://{LOOPBACK}:{self.port}/control", json.dumps(calls).encode())
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if self._tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a test's own server on the loopback
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=20.0) as answer:
            return json.loads(answer.read())

    def put(self, plural: str, value: Json) -> None:
        """Create or replace an object."""
        self.control(put=[plural, value])

    def delete(self, plural: str, name: str) -> None:
        """Delete an object of the namespace default."""
        self.control(delete=[plural, name])
