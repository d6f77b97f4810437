"""The ``meshgw`` command: tools around a configuration file. The daemon itself is started by ``twistd meshgw``.

Source: linkerd-config spec 1.1 (``-validate``, which is ``meshgw check`` here) and 11. ``check`` uses the very loader the daemon
uses. Exit status: 0 all is well, 1 a file has errors or a kind is broken, 2 the command itself is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from meshgw import __version__
from meshgw.config.later import LATER_KINDS
from meshgw.config.loader import LoadResult, load_file
from meshgw.config.reference import reference
from meshgw.config.router import RouterConfig
from meshgw.config.schema import file_schema
from meshgw.kinds import GROUPS, KindError, Registry

Write = Callable[[str], object]


def main(argv: Sequence[str] | None = None, *, registry: Registry | None = None, out: TextIO | None = None) -> int:
    """Run the command with ``argv`` (the process's own by default) and give its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser(arguments).parse_args(arguments)
    stream = out if out is not None else sys.stdout
    try:
        status: int = options.run(options, registry if registry is not None else Registry(), stream.write)
        stream.flush()
    except BrokenPipeError:  # the reader, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="meshgw", description="Tools around a meshgw configuration file.")
    parser.add_argument("--version", action="version", version=f"meshgw {__version__}")
    # The metavar lists what people use; `reference` serves the documentation's build.
    commands = parser.add_subparsers(required=True, metavar="{check,kinds,schema,dtab,certs}")
    check = commands.add_parser("check", help="report all problems of configuration files, without starting anything")
    check.add_argument("files", metavar="FILE", nargs="+", help="a configuration in YAML or JSON; - reads standard input")
    check.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    check.set_defaults(run=_check)
    kinds = commands.add_parser("kinds", help="list the kinds that a configuration can name")
    kinds.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    kinds.set_defaults(run=_kinds)
    schema = commands.add_parser("schema", help="print a JSON Schema of the configuration file")
    schema.set_defaults(run=_schema)
    commands.add_parser("reference").set_defaults(run=_reference)
    dtab = commands.add_parser("dtab", help="explain how a name is resolved")
    if "dtab" in arguments[:1]:
        # Only now: it needs the resolving machinery of the gateway, for which the other commands should not wait.
        from meshgw.cli.dtab import add_arguments, run

        add_arguments(dtab)
        dtab.set_defaults(run=lambda options, _registry, _write: run(options))
    certs = commands.add_parser("certs", help="make certificates for trying TLS out")
    if "certs" in arguments[:1]:
        from meshgw.cli import certs as making  # only now, as above: it loads the cryptography library

        making.add_arguments(certs)
        certs.set_defaults(run=lambda options, _registry, write: making.run(options, write))
    return parser


def _check(options: argparse.Namespace, registry: Registry, write: Write) -> int:
    results = [load_file(file, registry) for file in options.files]
    if options.json:
        write(json.dumps([_result_json(result) for result in results], indent=2) + "\n")
    else:
        for result in results:
            for problem in result.problems:
                write("".join(f"{line}\n" for line in problem.lines()))
            write(_summary(result) + "\n")
    return 1 if any(result.config is None for result in results) else 0


def _sizes(result: LoadResult) -> tuple[int, int]:
    """How many routers and servers a good file has."""
    routers = result.config.routers if result.config is not None else ()
    return len(routers), sum(len(chosen.config.servers) for chosen in routers if isinstance(chosen.config, RouterConfig))


def _summary(result: LoadResult) -> str:
    notices = f", {_count(len(result.notices), 'notice')}" if result.notices else ""
    if result.config is None:
        return f"{result.file}: {_count(len(result.errors), 'error')}{notices}"
    routers, servers = _sizes(result)
    return f"{result.file}: ok ({_count(routers, 'router')}, {_count(servers, 'server')}{notices})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _result_json(result: LoadResult) -> dict[str, object]:
    routers, servers = _sizes(result)
    found: dict[str, object] = {"file": result.file, "ok": result.config is not None}
    if result.config is not None:
        found |= {"routers": routers, "servers": servers}
    return found | {"problems": [problem.to_json() for problem in result.problems]}


def _kinds(options: argparse.Namespace, registry: Registry, write: Write) -> int:
    rows = [row for group in GROUPS for row in _group_rows(group, registry)]
    if options.json:
        write(json.dumps(rows, indent=2) + "\n")
    else:
        for row in rows:
            write(_row_text(row) + "\n")
    return 1 if any("error" in row for row in rows) else 0


def _group_rows(group: str, registry: Registry) -> list[dict[str, Any]]:
    known = registry.known(group)
    rows: list[dict[str, Any]] = []
    for id in known:
        row: dict[str, Any] = {"group": group, "id": id, "supported": True, "distribution": ", ".join(registry.distributions(group, id))}
        try:
            kind = registry.kind(group, id)
        except KindError as error:
            row["error"] = str(error)
        else:
            row["experimental"] = kind.experimental
            row["doc"] = (kind.config.__doc__ or "").strip().partition("\n")[0]
        rows.append(row)
    later = LATER_KINDS.get(group, {})
    rows += [{"group": group, "id": id, "supported": False, "doc": later[id]} for id in sorted(later) if id not in known]
    return rows


def _row_text(row: dict[str, Any]) -> str:
    start = f"{row['group']:<13} {row['id']:<38} "
    if not row["supported"]:
        return f"{start}not supported yet: {row['doc']}"
    if "error" in row:
        return f"{start}{row['distribution']}: broken: {row['error']}"
    experimental = " (experimental)" if row["experimental"] else ""
    return f"{start}{row['distribution']}{experimental}: {row['doc']}"


def _schema(_options: argparse.Namespace, registry: Registry, write: Write) -> int:
    write(json.dumps(file_schema(registry), indent=2) + "\n")
    return 0


def _reference(_options: argparse.Namespace, registry: Registry, write: Write) -> int:
    write(reference(registry))
    return 0
