"""The peers that tests and benchmarks talk to, as :class:`Process` objects ready to be added to a :class:`Running`.

Each function writes the given configuration into the directory, and knows the command line that keeps the program in the foreground.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Set
from pathlib import Path

from support.processes import Process, free_port

ROOT = Path(__file__).resolve().parents[2]
NAMED_SERVICE = ROOT / "deploy" / "demo" / "service.py"


def tool(name: str) -> str:
    """The full path of an installed program; Debian keeps daemons in directories that a user's PATH may lack."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin") or name


def written(directory: Path, name: str, text: str) -> Path:
    """Write a configuration file and give its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


def nginx(directory: Path, config: str, *, port: int, name: str = "nginx", core: int | Set[int] | None = None) -> Process:
    """nginx with ``config``: the contents of the main context; it stays in the foreground and keeps its files in ``directory``."""
    path = written(directory, f"{name}.conf", f"daemon off;\npid {directory}/{name}.pid;\nerror_log stderr;\n{config}")
    argv = [tool("nginx"), "-e", "stderr", "-p", str(directory), "-c", str(path)]
    return Process(name, argv, directory, port=port, core=core)


def haproxy(directory: Path, config: str, *, port: int, name: str = "haproxy", core: int | Set[int] | None = None) -> Process:
    """HAProxy in the foreground; `log stdout` lines end up in the process's output file."""
    path = written(directory, f"{name}.cfg", config)
    return Process(name, [tool("haproxy"), "-db", "-f", str(path)], directory, port=port, core=core)


def envoy(
    directory: Path, config: str, *, program: str, port: int, name: str = "envoy", core: int | Set[int] | None = None, concurrency: int = 1
) -> Process:
    """Envoy with ``concurrency`` workers; ``program`` is the binary's path (see ``benchmarks/environments.py``)."""
    path = written(directory, f"{name}.yaml", config)
    argv = [program, "-c", str(path), "--concurrency", str(concurrency), "--disable-hot-restart", "--log-level", "warning"]
    return Process(name, argv, directory, port=port, core=core)


def meshgw(
    directory: Path,
    config: str,
    *,
    port: int | None,
    name: str = "meshgw",
    core: int | Set[int] | None = None,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> Process:
    """The gateway under twistd, as an operator starts it; ``python`` chooses the environment."""
    path = written(directory, f"{name}.yml", config)
    twistd = Path(python).with_name("twistd")
    argv = [str(twistd), "--nodaemon", "--pidfile=", "meshgw", "--config", str(path)]
    return Process(name, argv, directory, port=port, core=core, env=env)


def service(directory: Path, name: str, *, port: int | None = None) -> Process:
    """A small HTTP/1.1 server that answers with its name and what it received (the demonstration's service)."""
    directory.mkdir(parents=True, exist_ok=True)
    chosen = port if port is not None else free_port()
    return Process(name, [sys.executable, str(NAMED_SERVICE), name, str(chosen)], directory, port=chosen)
