"""Whole files: what is read, what is refused and in which words (linkerd-config spec 1)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.loader import LoadResult, load, load_file
from meshgw.config.models import HttpRouterConfig
from meshgw.kinds import GROUPS, Registry

Shown = Callable[[str], list[str]]
Loaded = Callable[[str], LoadResult]

GOOD = "routers: [{protocol: http, servers: [{}]}]\n"


def http(fields: str) -> str:
    """A file with one router that has ``fields`` too."""
    return f"routers:\n- protocol: http\n  servers: [{{}}]\n  {fields}\n"


def router(result: LoadResult) -> HttpRouterConfig:
    assert result.config is not None, [problem.show() for problem in result.problems]
    config = result.config.routers[0].config
    assert isinstance(config, HttpRouterConfig)
    return config


TELEMETERS = sorted([*Registry().known("telemeters"), "trial.telemeter"])
FILES = {
    "": ["l.yaml: the file is empty; at least the key 'routers' is required"],
    "# a comment\n": ["l.yaml: the file is empty; at least the key 'routers' is required"],
    "~": ["l.yaml: the file is empty; at least the key 'routers' is required"],
    "[]": ["l.yaml:1:1: expected an object, found a list"],
    "hello": ["l.yaml:1:1: expected an object, found 'hello'"],
    "{}": ["l.yaml:1:1: routers: missing required field 'routers'"],
    "routers:": ["l.yaml:1:1: routers: missing required field 'routers'"],
    "routers: {}": ["l.yaml:1:10: routers: expected a list, found an object"],
    "routers: 3": ["l.yaml:1:10: routers: expected a list, found '3'"],
    "routers: []": ["l.yaml:1:10: routers: At least one router must be specified in the configuration."],
    "routers: [~]": ["l.yaml:1:11: routers[0]: expected an object, found nothing"],
    '{"routers": [}': ["l.yaml:1:14: not valid JSON: expected a value, found '}'"],
    '{"a" 1}': ["l.yaml:1:6: not valid JSON: expected ':', found '1'"],
    '{"a": 1,}': ["l.yaml:1:9: not valid JSON: expected a name in double quotes, found '}'"],
    '{"a": [1 2]}': ["l.yaml:1:10: not valid JSON: expected ',' or ']', found '2'"],
    '{"a": 1': ["l.yaml:1:8: not valid JSON: expected ',' or '}', found the end of the text"],
    '{"a": "b': ["l.yaml:1:7: not valid JSON: unterminated string"],
    '{"a": 1} x': ["l.yaml:1:10: not valid JSON: expected nothing more after the closing brace, found 'x'"],
    '{"a": tru}': ["l.yaml:1:7: not valid JSON: expected a value, found 't'"],
    "routers:\n- protocol: http\n\tdtab: x\n": ["l.yaml:3:1: a tab cannot be used for indentation; use spaces"],
    "a: b: c\n": ["l.yaml:1:5: not valid YAML: mapping values are not allowed here"],
    "x: &a [*a]\n": ["l.yaml:1:8: alias 'a' names no anchor before it, or its own parent"],
    "a: 1\n---\nb: 2\n": ["l.yaml:2:1: a second document begins here; only one is allowed"],
    "a: !thing 1\n": ["l.yaml:1:4: tag '!thing' is not supported"],
    "? [a]\n: b\n": ["l.yaml:1:3: a key must be a single word"],
    "a: \x01": ["l.yaml:1:4: the character U+0001 is not allowed"],
    "[" * 100: ["l.yaml:1:66: nested more than 64 levels deep"],
}


@pytest.mark.parametrize("text", FILES, ids=lambda text: repr(text[:30]))
def test_unusable_file_is_one_problem_at_its_place(text: str, shown: Shown) -> None:
    assert shown(text) == FILES[text]


def test_unknown_field_names_the_known_ones_and_the_nearest(shown: Shown) -> None:
    assert shown("admin: {prot: 1}\n" + GOOD) == [
        "l.yaml:1:9: admin.prot: unknown field 'prot'; known: authentication, hostNames, httpIdentifierPort, ip, port, security, "
        "shutdownGraceMs, socketOptions, tls, workerThreads; did you mean 'port'?"
    ]


def test_field_of_a_router_is_unknown_at_the_top(shown: Shown) -> None:
    expected = ["l.yaml:1:1: dtab: unknown field 'dtab'; known: admin, namers, routers, telemetry, usage, user, workers"]
    assert shown("dtab: /a => /b\n" + GOOD) == expected


def test_duplicate_keys_are_refused_in_yaml_and_json(shown: Shown) -> None:
    assert shown("admin: {port: 1}\nadmin: {port: 2}\n" + GOOD) == [
        "l.yaml:2:1: admin: duplicate key 'admin'; it is given already on line 1"
    ]
    json = '{"routers": [{"protocol": "http",\n"label": "a", "label": "b", "servers": [{}]}]}'
    assert shown(json) == ["l.yaml:2:15: routers[0].label: duplicate key 'label'; it is given already on line 2"]


def test_duplicate_key_inside_an_unread_block_is_found(shown: Shown) -> None:
    lines = shown(http("announcers: [{a: 1, a: 2}]"))
    assert [line for line in lines if "duplicate" in line] == [
        "l.yaml:4:23: routers[0].announcers[0].a: duplicate key 'a'; it is given already on line 4"
    ]


def test_null_is_the_same_as_absent(loaded: Loaded) -> None:
    result = loaded("admin: ~\nnamers: null\ntelemetry:\n" + http("label: ~\n  dtab:\n  client: null"))
    assert router(result).label == "http"
    assert result.config is not None and result.config.admin.port == 9990


def test_numbers_and_text_are_taken_for_each_other(loaded: Loaded) -> None:
    config = router(loaded(http("label: 8080\n  bindingTimeoutMs: '5000'\n  maxHeadersKB: 16.0")))
    assert (config.label, config.binding_timeout_ms, config.max_headers_kb) == ("8080", 5000, 16)


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "'true'"])
def test_true_is_read_in_its_usual_forms(word: str, loaded: Loaded) -> None:
    assert router(loaded(http(f"originator: {word}"))).originator is True


VALUES = {
    "admin: {port: '9990'}": "admin.port: expected a port number, found the text '9990'; write it without quotes",
    "admin: {port: 70000}": "admin.port: 70000 outside valid range for ports; expected 0 to 65535",
    "admin: {port: -1}": "admin.port: -1 outside valid range for ports; expected 0 to 65535",
    "admin: {port: abc}": "admin.port: expected a whole number, found 'abc'",
    "admin: {port: [1]}": "admin.port: expected a single value, found a list",
    "admin: {ip: localhost}": "admin.ip: expected a literal IPv4 or IPv6 address, found 'localhost'; host names are not resolved here",
    "admin: {shutdownGraceMs: 1.5}": "admin.shutdownGraceMs: expected a whole number, found '1.5'",
    "admin: {shutdownGraceMs: -1}": "admin.shutdownGraceMs: must be at least 0, not -1",
    "admin: {shutdownGraceMs: 99999999999999999999}": ("admin.shutdownGraceMs: 99999999999999999999 is too large for a number of 64 bits"),
    "admin: {security: {uiEnabled: yes}}": "admin.security.uiEnabled: expected true or false, found 'yes'; write true",
    "admin: {security: {uiEnabled: 1}}": "admin.security.uiEnabled: expected true or false, found '1'",
    "admin: {security: {pathWhitelist: x}}": "admin.security.pathWhitelist: expected a list, found 'x'",
    "admin: {security: {pathBlacklist: [a, '(']}}": (
        "admin.security.pathBlacklist[1]: not a regular expression: missing ), unterminated subpattern at position 0"
    ),
    "admin: 3": "admin: expected an object, found '3'",
    "admin: {tls: {certPath: /dev/null}}": "admin.tls: missing required field 'keyPath'",
    "admin: {tls: {sni: {ingress: true}}}": "admin.tls: sni.ingress is for servers of routers; the admin server has no ingresses",
    "usage: []": "usage: expected an object, found a list",
    "namers: {}": "namers: expected a list, found an object",
    "telemetry: [{}]": f"telemetry[0].kind: missing required field 'kind'; known: {', '.join(TELEMETERS)}",
    "namers: [{kind: io.l5d.fs}]": "namers[0].rootDir: missing required field 'rootDir'",
    "namers: [{kind: io.l5d.fs, rootDir: /no/such}]": "namers[0].rootDir: /no/such is not a directory; it does not exist",
    "namers: [{kind: io.l5d.fs, rootDir: /dev/null}]": "namers[0].rootDir: /dev/null is not a directory",
    "telemetry: [{kind: io.l5d.recentRequests, sampleRate: 1.5}]": "telemetry[0].sampleRate: sampleRate must be between 0.0 and 1.0",
    "telemetry: [{kind: io.l5d.tracelog, host: x}]": (
        "telemetry[0].host: unknown field 'host'; known: experimental, kind, level, sampleRate"
    ),
    "telemetry: [{kind: io.l5d.zipkin, tls: {commonName: z}}]": "telemetry[0]: tls needs protocol: http",
    "namers: [{kind: io.l5d.k8s.istio}]": "namers[0].kind: out of scope: Istio's discontinued API (`io.l5d.k8s.istio`)",
    "namers: [{kind: trial.namer}]": (
        "namers[0].experimental: The trial.namer namer is experimental and must be explicitly enabled by setting the "
        "'experimental' parameter to 'true'."
    ),
    "namers: [{kind: trial.namer, experimental: true, weights: {a: 1, b: x}}]": "namers[0].weights.b: expected a number, found 'x'",
    "telemetry: [{kind: trial.telemeter, experimental: false}]": (
        "telemetry[0].experimental: The trial.telemeter telemeter is experimental and must be explicitly enabled by setting the "
        "'experimental' parameter to 'true'."
    ),
}


@pytest.mark.parametrize("line", VALUES)
def test_bad_value_is_told_in_full(line: str, shown: Shown) -> None:
    problems = shown(f"{line}\n{GOOD}")
    assert [problem.partition(": ")[2] for problem in problems] == [VALUES[line]]
    assert problems[0].startswith("l.yaml:1:")


ROUTERS = {
    "dstPrefix: svc": "routers[0].dstPrefix: not a valid path: expected '/', found 's'",
    "client: {kind: io.l5d.statik}": (
        "routers[0].client.kind: unknown kind 'io.l5d.statik'; known: io.l5d.global, io.l5d.static; did you mean 'io.l5d.static'?"
    ),
    "client: {kind: io.l5d.static}": "routers[0].client.configs: missing required field 'configs'",
    "client: {loadBalancer: {kind: p3c}}": (
        "routers[0].client.loadBalancer.kind: unknown kind 'p3c'; known: aperture, ewma, heap, p2c, roundRobin; did you mean 'p2c'?"
    ),
    "client: {loadBalancer: {}}": (
        "routers[0].client.loadBalancer.kind: missing required field 'kind'; known: aperture, ewma, heap, p2c, roundRobin"
    ),
    "client: {socketOptions: {}}": "routers[0].client.socketOptions: not supported yet: socket options of clients (`socketOptions`)",
    "service: {retryBufferSize: {}}": (
        "routers[0].service.retryBufferSize: unknown field 'retryBufferSize'; known: faults, kind, responseClassifier, retries, "
        "totalTimeoutMs; it is for services in routers of protocol h2; here the router's streamAfterContentLengthKB bounds what is kept"
    ),
    "identifier: []": "routers[0].identifier: empty identifier list",
    "identifier: {kind: trial.identifier}": (
        "routers[0].identifier.kind: kind 'trial.identifier' is for routers with protocol trial, not http"
    ),
    "identifier: {kind: io.l5d.header.token, experimental: true}": (
        "routers[0].identifier.experimental: unknown field 'experimental'; known: header, kind"
    ),
    "interpreter: {kind: trial.interpreter}": (
        "routers[0].interpreter.experimental: The trial.interpreter interpreter is experimental and must be explicitly enabled by "
        "setting the 'experimental' parameter to 'true'."
    ),
    "maxHeadersKB: 0": "routers[0].maxHeadersKB: must be at least 1, not 0",
    "httpAccessLogRollPolicy: fortnightly": (
        "routers[0].httpAccessLogRollPolicy: unknown roll policy 'fortnightly'; expected never, hourly, daily, weekly(1..7) or a size "
        "such as 3.megabytes"
    ),
    "compressionLevel: 6": (
        "routers[0].compressionLevel: not supported yet: compression of responses (`compressionLevel`); only 0, which is off, is accepted"
    ),
}


@pytest.mark.parametrize("line", ROUTERS)
def test_bad_value_in_a_router_is_told_in_full(line: str, shown: Shown) -> None:
    assert [problem.partition(": ")[2] for problem in shown(http(line))] == [ROUTERS[line]]


def test_forwarding_fields_are_written_in_one_of_three_ways(shown: Shown, loaded: Loaded) -> None:
    text = "routers: [{protocol: http, servers: [{xForwardedHeaders: %s}]}]"
    assert [router(loaded(text % way)).servers[0].x_forwarded_headers for way in ("pass", "append", "replace")] == [
        "pass",
        "append",
        "replace",
    ]
    assert shown(text % "drop") == ["l.yaml:1:58: routers[0].servers[0].xForwardedHeaders: must be one of pass, append, replace, not drop"]


def test_unknown_protocol_lists_the_known_ones(shown: Shown) -> None:
    assert shown("routers: [{protocol: htttp}]") == [
        "l.yaml:1:22: routers[0].protocol: unknown kind 'htttp'; known: h2, http, trial (not supported yet: mux, thrift, thriftmux); "
        "did you mean 'http'?"
    ]


def test_experimental_protocol_must_be_enabled_on_each_router(shown: Shown, loaded: Loaded) -> None:
    text = "routers: [{protocol: trial, servers: [{}]%s}]"
    assert shown(text % "") == [
        "l.yaml:1:11: routers[0].experimental: The trial protocol is experimental and must be explicitly enabled by setting the "
        "'experimental' parameter to 'true' on each router."
    ]
    assert loaded(text % ", experimental: true").config is not None


def test_experimental_is_ignored_on_kinds_that_are_not(loaded: Loaded) -> None:
    assert loaded(http("experimental: true\n  interpreter: {kind: default, experimental: true}")).problems == ()


def test_all_problems_of_a_file_are_reported_in_order(shown: Shown) -> None:
    text = (
        "admin:\n  port: x\nrouters:\n- protocol: http\n  label: a\n  servers: [{port: 70000}]\n  dtb: /x\n"
        "- protocol: http\n  label: a\n  dtab: /x\n  servers: [{}]\n"
    )
    assert [line.split(": ")[1] for line in shown(text)] == [
        "admin.port",
        "routers[0].servers[0].port",
        "routers[0].dtb",
        "routers[1].label",
        "routers[1].dtab",
    ]


DTABS = {
    "dtab: |\n    # rules\n    /svc => /#/io.l5d.fs;\n\n    /foo => ^bar;": (
        "l.yaml:8:13: routers[0].dtab: not a valid dtab: expected a path, '(', '!', '~' or '$', found '^'",
        "    /foo => ^bar;",
        "            ^",
    ),
    "dtab: >\n    /svc => /#/io.l5d.fs;\n    /foo => /bar/;": (
        "l.yaml:6:18: routers[0].dtab: not a valid dtab: expected a label character, found ';'",
        "    /svc => /#/io.l5d.fs; /foo => /bar/;",
        "                                       ^",
    ),
    "dtab: '/svc =>'": (
        "l.yaml:4:17: routers[0].dtab: not a valid dtab: expected a path, '(', '!', '~' or '$', found the end",
        "    /svc =>",
        "           ^",
    ),
    "dtab: /svc => /a;\n    /b = /c": (
        "l.yaml:5:8: routers[0].dtab: not a valid dtab: expected '=>', found '='",
        "    /svc => /a; /b = /c",
        "                   ^",
    ),
    'dtab: "/svc => \\x2fa ^"': (
        "l.yaml:4:9: routers[0].dtab: not a valid dtab: expected ';' or the end of the input, found '^'",
        "    /svc => /a ^",
        "               ^",
    ),
}


@pytest.mark.parametrize("text", DTABS, ids=lambda text: text[:12])
def test_bad_dtab_is_shown_with_its_line_and_a_caret(text: str, loaded: Loaded) -> None:
    problems = loaded(http(text)).problems
    assert len(problems) == 1
    assert tuple(problems[0].lines()) == DTABS[text]


def test_router_without_servers_is_refused(shown: Shown) -> None:
    assert shown("routers: [{protocol: http}]") == ["l.yaml:1:11: routers[0].servers: router 'http' has no servers"]
    assert shown("routers: [{protocol: http, label: a, servers: []}]") == [
        "l.yaml:1:47: routers[0].servers: router 'a' has no servers",
    ]


def test_router_whose_only_server_is_bad_has_no_second_problem(shown: Shown) -> None:
    assert len(shown("routers: [{protocol: http, servers: [{port: x}]}]")) == 1


def test_two_routers_may_not_share_a_label(shown: Shown) -> None:
    text = "routers:\n- protocol: http\n  servers: [{port: 1}]\n- protocol: http\n  servers: [{port: 2}]\n"
    assert shown(text) == [
        "l.yaml:4:3: routers[1].label: Multiple routers with the label http; routers[0] on line 2 has it too; give one another label"
    ]


LISTENERS = {
    "{port: 1}, {port: 1}": "Server conflict on port 1; routers[0].servers[0] on line 1 listens on 127.0.0.1:1",
    "{port: 1}, {port: 1, ip: 0.0.0.0}": "Server conflict on port 1; routers[0].servers[0] on line 1 listens on 127.0.0.1:1",
    "{port: 1, ip: '::'}, {port: 1}": "Server conflict on port 1; routers[0].servers[0] on line 1 listens on [::]:1",
    "{port: 1, ip: '::'}, {port: 1, ip: '::1'}": "Server conflict on port 1; routers[0].servers[0] on line 1 listens on [::]:1",
    "{port: 9990}": "Server conflict on port 9990; the admin server on line 2 listens on 127.0.0.1:9990",
    "{port: 9991}": "Server conflict on port 9991; admin.httpIdentifierPort on line 2 listens on 127.0.0.1:9991",
    "{port: 1}, {port: 1, ip: '::1'}": None,
    "{port: 1}, {port: 1, ip: 127.0.0.2}": None,
    "{port: 1, ip: 0.0.0.0}, {port: 1, ip: '::1'}": None,
    "{port: 0}, {port: 0}": None,
}


@pytest.mark.parametrize("servers", LISTENERS)
def test_addresses_that_cannot_be_bound_together_conflict(servers: str, shown: Shown) -> None:
    text = f"routers: [{{protocol: http, servers: [{servers}]}}]\nadmin: {{httpIdentifierPort: 9991}}\n"
    expected = LISTENERS[servers]
    assert [line.split(": ", 2)[2] for line in shown(text)] == ([expected] if expected else [])


def test_admin_port_that_the_file_does_not_name_conflicts_too(shown: Shown) -> None:
    assert shown("routers: [{protocol: http, servers: [{port: 9990}]}]") == [
        "l.yaml:1:45: routers[0].servers[0].port: Server conflict on port 9990; the admin server listens on 127.0.0.1:9990"
    ]


def test_conflicting_streaming_options_are_refused(shown: Shown) -> None:
    errors = [line for line in shown(http("streamingEnabled: false\n  streamAfterContentLengthKB: 5\n  label: x")) if "notice" not in line]
    assert errors == [
        "l.yaml:2:3: routers[0]: Conflicting streaming options set. Can't disable streaming and set streamAfterContentLengthKB in x"
    ]


def test_option_without_effect_is_a_notice_and_no_error(loaded: Loaded) -> None:
    result = loaded(http("streamingEnabled: false"))
    assert result.config is not None
    assert [problem.show() for problem in result.notices] == [
        "l.yaml:4:21: notice: routers[0].streamingEnabled: has no effect: bodies are always streamed, in constant memory"
    ]


def test_absent_blocks_get_their_default_kinds(loaded: Loaded) -> None:
    config = router(loaded(GOOD))
    assert config.interpreter.kind.id == "default"
    assert [chosen.kind.id for chosen in config.identifier] == ["io.l5d.header.token"]
    assert config.servers[0].port == 4140


def test_chosen_block_knows_its_place(loaded: Loaded) -> None:
    config = router(loaded(http("identifier:\n  - kind: io.l5d.path\n  - kind: io.l5d.methodAndHost")))
    assert [(chosen.kind.id, chosen.path, chosen.line) for chosen in config.identifier] == [
        ("io.l5d.path", "routers[0].identifier[0]", 5),
        ("io.l5d.methodAndHost", "routers[0].identifier[1]", 6),
    ]


def test_growth_by_aliases_is_bounded(shown: Shown) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert shown("\n".join(lines)) == ["l.yaml:6:5: more than 200000 values, counting repeated aliases"]


def test_path_that_is_no_file_is_refused(tmp_path: Path, registry: Registry) -> None:
    for path in (str(tmp_path), str(tmp_path / "none.yaml"), "a\0b"):
        result = load_file(path, registry)
        assert [problem.message for problem in result.problems] == [f"config is not a file: {path}"]


def test_file_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path, registry: Registry) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"routers:\n- label: caf\xe9\n")
    problem = load_file(str(file), registry).problems[0]
    assert (problem.line, problem.column) == (2, 13)
    assert problem.message == "byte 0xe9 is not UTF-8"


def test_byte_order_mark_is_skipped(tmp_path: Path, registry: Registry) -> None:
    file = tmp_path / "bom.json"
    file.write_bytes(b'\xef\xbb\xbf{"routers": [{"protocol": "http", "servers": [{}]}]}')
    assert load_file(str(file), registry).problems == ()


def test_dash_reads_standard_input(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"routers: 3")))
    problems = load_file("-", registry).problems
    assert [problem.show() for problem in problems] == ["standard input:1:10: routers: expected a list, found '3'"]


EMPTY = Registry({group: [] for group in GROUPS})
WORDS = st.sampled_from(
    (
        *("routers", "admin", ":", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", "&a", "*a", "!!str", "!x", "|\n  ", ">", "'", '"'),
        *("\\", "#", "\t", "~", "0x", "---", "...", "? ", "%", "protocol: http", "kind: io.l5d.fs", "servers", ",", "é", "\x00", "<<"),
        "\ud800",
    )
)


@given(st.lists(WORDS | st.text(max_size=3), max_size=30).map("".join))
def test_no_text_makes_the_loader_raise(text: str) -> None:
    assert load(text, "any", EMPTY).config is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["admin", "routers", "namers", "usage", "port", "ip", "security", "enabled", "socketOptions"]) | st.text(), inner
)))  # fmt: skip
def test_no_json_document_makes_the_loader_raise(document: object) -> None:
    import json

    assert load(json.dumps({"admin": document, "usage": document}), "any", EMPTY).config is None


@given(st.binary(max_size=60))
def test_no_bytes_make_the_loader_raise(content: bytes) -> None:
    from meshgw.config.loader import _load_bytes

    assert _load_bytes(content, "any", EMPTY).config is None


def test_token_files_are_not_looked_at_by_a_check(shown: Shown) -> None:
    assert shown("admin: {authentication: {operatorTokenFile: /nowhere/token}}\n" + GOOD) == []


def test_authentication_without_an_operators_token_is_refused(shown: Shown) -> None:
    problems = shown("admin: {authentication: {readerTokenFile: /nowhere/token}}\n" + GOOD)
    assert problems == ["l.yaml:1:25: admin.authentication.operatorTokenFile: missing required field 'operatorTokenFile'"]


@pytest.mark.parametrize("name", ["http://mesh.corp", "mesh.corp:9990", "", "*.corp", "[::1]"])
def test_what_is_no_host_name_is_refused(shown: Shown, name: str) -> None:
    problems = shown(f"admin: {{hostNames: [mesh.corp, '{name}']}}\n" + GOOD)
    assert len(problems) == 1 and f"admin.hostNames: {name!r} is not a host name" in problems[0]
