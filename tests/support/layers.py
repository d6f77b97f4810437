"""Reads the imports of meshgw's modules and tells which break the layer table of the architecture guide.

The rules stand here as data, each in the words of `docs/architecture.md`; nothing is imported or executed, only parsed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

HARD_LINE_LIMIT = 600

LEVELS = {
    "errors": 0,
    "naming": 0,
    "wire": 0,
    "core": 1,
    "kinds": 1,
    "config": 2,
    "telemetry": 2,
    "backends": 3,
    "server": 4,
    "identify": 4,
    "filters": 4,
    "bind": 4,
    "namers": 4,
    "transform": 4,
    "balance": 4,
    "client": 4,
    "namerd": 5,
    "admin": 5,
    "app": 6,
    "cli": 6,
}

# Same level, yet allowed: (importer, imported, why). Names are prefixes of module names below meshgw.
ALLOWED_SIBLINGS = (
    ("naming", "errors", "every layer raises the errors"),
    ("wire", "errors", "every layer raises the errors"),
    ("kinds", "core", "kinds stands above core: its protocols are made of core's values"),
    ("telemetry", "config.document", "a telemeter declares its block as every kind does"),
    ("telemetry", "config.values", "a telemeter declares its block as every kind does"),
    ("bind.remote", "client", "asking a namerd is being a client of it"),
    ("cli", "app", "the command line checks a file with the loader that the daemon uses"),
)

# Upward, but only for type checkers (inside `if TYPE_CHECKING:`): the name is never needed at run time.
ALLOWED_FOR_TYPES = (("kinds", "telemetry.metrics", "Runtime carries a metrics scope"),)

# Narrower than the level says.
FORBIDDEN = (
    ("cli.namerctl", "app", "namerctl talks to a daemon over HTTP, it contains none"),
    ("cli.meshgw", "app.workers", "the tools around a file never start processes"),
)
NAMERCTL_MAY_IMPORT = ("errors", "naming", "cli")

PURE = {"errors": {"attrs"}, "naming": {"attrs"}, "wire": {"attrs", "h2", "hpack", "hyperframe", "jh2"}}

HOT = ("wire", "server", "identify.request", "core.exchange", "core.stack", "filters", "balance", "client")
NOT_HOT = ("server.listener",)


@attrs.frozen(order=True)
class Breach:
    """One broken rule, with the place and what to do."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


@attrs.frozen
class Import:
    """One import statement: the module it names, whether only type checkers see it, whether it runs when its module is imported."""

    target: str
    line: int
    for_types: bool
    at_module_level: bool


def check_tree(package: Path) -> list[Breach]:
    """All breaches below ``package`` (the `meshgw` folder), sorted by place."""
    found: list[Breach] = []
    for file in sorted(package.rglob("*.py")):
        found += check_source(module_name(package, file), file.read_text(), str(file.relative_to(package.parent)))
    return sorted(found)


def module_name(package: Path, file: Path) -> str:
    """The dotted name of ``file`` below the package, without `meshgw.`; the package itself is the empty name."""
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def check_source(module: str, source: str, file: str) -> list[Breach]:
    """The breaches of one module, given by its dotted name below meshgw."""
    tree = ast.parse(source, file)
    is_package = file.endswith("__init__.py")
    found = [Breach(file, item.line, problem) for item in imports(tree, module, is_package) for problem in _import_problems(module, item)]
    if _within(module, HOT) and not _within(module, NOT_HOT):
        found += [Breach(file, line, problem) for line, problem in _hot_problems(tree)]
    lines = source.count("\n") + 1
    if lines > HARD_LINE_LIMIT:
        found.append(Breach(file, HARD_LINE_LIMIT, f"{lines} lines, the limit is {HARD_LINE_LIMIT}; split it by what changes together"))
    if module and module.split(".")[0] not in LEVELS:
        found.append(Breach(file, 1, f"package {module.split('.')[0]!r} has no level; add it to the table or move the module"))
    return found


def imports(tree: ast.Module, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module; `from a import b` gives `a.b`, so that a submodule is told from its package."""
    yield from _walk(tree, ["meshgw", *(module.split(".") if module else [])], is_package, for_types=False, at_module_level=True)


def _walk(node: ast.AST, here: list[str], is_package: bool, *, for_types: bool, at_module_level: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, for_types, at_module_level)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield Import(f"{_origin(child, here, is_package)}.{alias.name}", child.lineno, for_types, at_module_level)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            body = ast.Module(child.body, [])
            yield from _walk(body, here, is_package, for_types=True, at_module_level=at_module_level)
            yield from _walk(ast.Module(child.orelse, []), here, is_package, for_types=for_types, at_module_level=at_module_level)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, here, is_package, for_types=for_types, at_module_level=at_module_level and not inside)


def _origin(statement: ast.ImportFrom, here: list[str], is_package: bool) -> str:
    if not statement.level:
        return statement.module or ""
    drop = statement.level - (1 if is_package else 0)
    base = here[: len(here) - drop] if drop else here
    return ".".join([*base, *(statement.module or "").split(".")]).rstrip(".")


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")


def _import_problems(module: str, item: Import) -> Iterator[str]:
    if item.target in ("twisted.internet.reactor", "twisted.internet.reactor.*") and item.at_module_level and not item.for_types:
        yield "imports the reactor at module level, which installs one for the whole process; take it as a parameter"
    top, _, rest = item.target.partition(".")
    if top != "meshgw":
        yield from _outside_problems(module, top)
    elif rest and module:
        yield from _inside_problems(module, rest, item.for_types)


def _outside_problems(module: str, top: str) -> Iterator[str]:
    allowed = PURE.get(module.split(".")[0])
    if allowed is not None and top not in allowed and top not in sys.stdlib_module_names:
        extra = ", ".join(sorted(allowed))
        yield f"imports {top}; {module.split('.')[0]} is pure: the standard library, {extra} and meshgw.errors only"


def _inside_problems(module: str, target: str, for_types: bool) -> Iterator[str]:
    mine, other = module.split(".")[0], target.split(".")[0]
    if other not in LEVELS:
        return  # a name of the top package, such as __version__
    for importer, imported, why in FORBIDDEN:
        if _within(module, (importer,)) and _within(target, (imported,)):
            yield f"imports meshgw.{target}, which {importer} must not: {why}"
    if _within(module, ("cli.namerctl",)) and not _within(target, NAMERCTL_MAY_IMPORT):
        yield f"imports meshgw.{target}; namerctl may import only {', '.join(NAMERCTL_MAY_IMPORT)} and talk HTTP"
    if mine == other or mine not in LEVELS:
        return
    if for_types and any(_within(module, (a,)) and _within(target, (b,)) for a, b, _ in ALLOWED_FOR_TYPES):
        return
    if any(_within(module, (a,)) and _within(target, (b,)) for a, b, _ in ALLOWED_SIBLINGS) or mine == "app":
        return
    if LEVELS[other] > LEVELS[mine]:
        yield f"imports meshgw.{target} of level {LEVELS[other]}; {mine} is level {LEVELS[mine]} and may only look down"
    elif LEVELS[other] == LEVELS[mine]:
        yield f"imports meshgw.{target}, its sibling on level {LEVELS[mine]}; siblings meet through kinds and core, put together by app"


def _hot_problems(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            yield node.lineno, f"async def {node.name} on the data path; use filter hooks or a state machine with named methods"
        elif isinstance(node, ast.Call) and _last_name(node.func) == "Deferred":
            yield node.lineno, "makes a Deferred on the data path; use a named method called later"
        elif isinstance(node, ast.Attribute) and node.attr == "callLater":
            yield node.lineno, "uses callLater on the data path; give the timeout to the deadline wheel"


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Subscript):  # Deferred[bytes]()
        return _last_name(function.value)
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)
