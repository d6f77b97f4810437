"""A configuration file as a whole: read it, fill the classes, check what only the whole file can tell.

Source: linkerd-config spec 1.1 and 1.4. Nothing is opened but the file itself, so that the same code serves the start and
``meshgw check``. Conflicts that Linkerd overlooks and fails over when it binds are found too: a wildcard address beside a
specific one, and the admin ports.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator

import attrs

from meshgw.config.binding import BROKEN, Binder
from meshgw.config.models import Config
from meshgw.config.nodes import MAX_CHARACTERS, Scalar, read_nodes
from meshgw.config.problems import Problem, Severity, UnreadableText, pointed, position
from meshgw.config.roles import with_roles
from meshgw.config.router import RouterConfig
from meshgw.kinds import Registry


@attrs.frozen(kw_only=True)
class LoadResult:
    """What became of a file: ``config`` is None if there is any error; notices do not count as errors. ``text`` is what was read."""

    file: str
    config: Config | None
    problems: tuple[Problem, ...]
    text: str = attrs.field(default="", repr=False)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that make the start fail."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    @property
    def notices(self) -> tuple[Problem, ...]:
        """The remarks that do not."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.NOTICE)


def load_file(path: str, registry: Registry) -> LoadResult:
    """Load the file at ``path``, or all of standard input for ``-``. Never raises for what the file holds."""
    if path == "-":
        return _load_bytes(sys.stdin.buffer.read(MAX_CHARACTERS * 4 + 1), "standard input", registry)
    try:
        if not os.path.isfile(path):
            return _refused(path, f"config is not a file: {path}")
        with open(path, "rb") as file:
            content = file.read(MAX_CHARACTERS * 4 + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return _refused(path, f"config cannot be read: {reason}")
    return _load_bytes(content, path, registry)


def _load_bytes(content: bytes, file: str, registry: Registry) -> LoadResult:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        line, column = position(before, len(before))
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        return _refused(file, message, line=line, column=column, suggestion="save the file in UTF-8")
    return load(text, file, registry)


def load(text: str, file: str, registry: Registry) -> LoadResult:
    """Load a configuration from YAML or JSON text; ``file`` names it in problems. Never raises for what the text holds."""
    binder = Binder(text, file, registry)
    try:
        root = read_nodes(text)
    except UnreadableText as error:
        line, column = position(text, error.index)
        excerpt = pointed(text, error.index)
        return _refused(file, error.message, line=line, column=column, suggestion=error.suggestion, excerpt=excerpt)
    if root is None or (isinstance(root, Scalar) and root.is_null):
        return _refused(file, "the file is empty", suggestion="at least the key 'routers' is required")
    binder.repeated_keys(root)
    for conflict in registry.check():
        binder.report("", str(conflict))
    config = binder.block(Config, with_roles(root), "")
    if isinstance(config, Config):
        _check_labels(config, binder)
        _check_servers(config, binder)
        _check_listeners(config, binder)
    problems = tuple(sorted(binder.problems, key=lambda problem: (problem.line, problem.column)))
    is_good = config is not BROKEN and all(problem.severity is Severity.NOTICE for problem in problems)
    return LoadResult(file=file, config=config if is_good else None, problems=problems, text=text)


def _refused(
    file: str, message: str, *, line: int = 0, column: int = 0, suggestion: str | None = None, excerpt: tuple[str, ...] = ()
) -> LoadResult:
    problem = Problem(file=file, message=message, line=line, column=column, suggestion=suggestion, excerpt=excerpt)
    return LoadResult(file=file, config=None, problems=(problem,))


def _routers(config: Config) -> Iterator[tuple[str, str, RouterConfig]]:
    """Path, effective label and block of each router."""
    for chosen in config.routers:
        if isinstance(chosen.config, RouterConfig):
            yield chosen.path, chosen.config.label or chosen.kind.id, chosen.config


def _check_labels(config: Config, binder: Binder) -> None:
    first: dict[str, str] = {}
    for path, label, _ in _routers(config):
        if binder.has_problem_at(f"{path}.label"):
            continue  # a default stands in for what could not be read
        if label in first:
            other = f"{first[label]} on line {binder.line_of(first[label])} has it too"
            binder.report(f"{path}.label", f"Multiple routers with the label {label}", suggestion=f"{other}; give one another label")
        first.setdefault(label, path)


def _check_servers(config: Config, binder: Binder) -> None:
    for path, label, router in _routers(config):
        if not router.servers and not binder.has_problem_at(f"{path}.servers"):
            binder.report(f"{path}.servers", f"router '{label}' has no servers")


@attrs.frozen
class _Listener:
    """An address that will be listened on; ``path`` is the place of the port in the file."""

    ip: str
    port: int
    path: str
    name: str

    def overlaps(self, other: _Listener) -> bool:
        """Whether binding both fails; an IPv6 wildcard takes IPv4 too, as the system's default is."""
        if self.port != other.port or self.port == 0:
            return False
        mine, others = ipaddress.ip_address(self.ip), ipaddress.ip_address(other.ip)
        if mine == others:
            return True
        return any(one.is_unspecified and (one.version in (6, two.version)) for one, two in ((mine, others), (others, mine)))


def _listeners(config: Config) -> Iterator[_Listener]:
    admin = config.admin
    yield _Listener(admin.ip, admin.port, "admin.port", "the admin server")
    if admin.http_identifier_port is not None:
        yield _Listener(admin.ip, admin.http_identifier_port, "admin.httpIdentifierPort", "admin.httpIdentifierPort")
    for path, _, router in _routers(config):
        for index, server in enumerate(router.servers):
            place = f"{path}.servers[{index}]"
            yield _Listener(server.ip, server.port, f"{place}.port", place)


def _check_listeners(config: Config, binder: Binder) -> None:
    by_port: dict[int, list[_Listener]] = {}
    for listener in _listeners(config):
        block = listener.path.rpartition(".")[0]
        if binder.has_problem_at(listener.path) or binder.has_problem_at(f"{block}.ip"):
            continue  # a default stands in for what could not be read
        others = by_port.setdefault(listener.port, [])
        taken = next((other for other in others if other.overlaps(listener)), None)
        if taken is not None:
            line = binder.line_of(taken.path)
            where = f" on line {line}" if line else ""
            text = f"Server conflict on port {listener.port}"
            shown = f"[{taken.ip}]" if ":" in taken.ip else taken.ip
            binder.report(listener.path, text, suggestion=f"{taken.name}{where} listens on {shown}:{taken.port}")
        others.append(listener)
