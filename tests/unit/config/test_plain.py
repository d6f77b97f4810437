"""The configuration as ``/config.json`` shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from meshgw.config.document import Chosen, option
from meshgw.config.fields import element_of, fields_of, mapped_of
from meshgw.config.loader import LoadResult, load
from meshgw.config.models import Config
from meshgw.config.plain import MASK, config_to_json
from meshgw.kinds import GROUPS, Kind, Registry

Loaded = Callable[[str], LoadResult]


def plain(loaded: Loaded, text: str) -> dict[str, object]:
    result = loaded(text)
    assert result.config is not None, [problem.show() for problem in result.problems]
    return config_to_json(result.config)


def test_absent_options_are_omitted(loaded: Loaded) -> None:
    assert plain(loaded, "routers: [{protocol: http, servers: [{}]}]") == {"routers": [{"protocol": "http", "servers": [{}]}]}


def test_values_are_shown_as_they_are_written(loaded: Loaded) -> None:
    document = {
        "admin": {"port": 1, "security": {"pathWhitelist": ["/a.*"]}},
        "routers": [
            {
                "protocol": "http",
                "label": "x",
                "dtab": "/svc=>/a | /b",
                "dstPrefix": "/http",
                "identifier": [{"kind": "io.l5d.path", "segments": 2}],
                "client": {
                    "kind": "io.l5d.static",
                    "configs": [{"loadBalancer": {"kind": "p2c", "maxEffort": 9}, "prefix": "/{a}/*"}],
                },
                "servers": [{"addForwardedHeader": {"by": {"kind": "static", "label": "me"}}, "port": 3}],
            }
        ],
    }
    assert plain(loaded, json.dumps(document)) == document


def test_secrets_are_masked(loaded: Loaded) -> None:
    text = "namers: [{kind: trial.namer, experimental: true, password: hush, weights: {a: 1}}]\nrouters: [{protocol: http, servers: [{}]}]"
    shown = plain(loaded, text)
    assert shown["namers"] == [{"kind": "trial.namer", "experimental": True, "password": MASK, "weights": {"a": 1.0}}]


@attrs.frozen(kw_only=True)
class Login:
    password: str = option(doc="A secret.", secret=True)


@attrs.frozen(kw_only=True)
class Keys:
    words: tuple[str, ...] = option(default=(), doc="Secrets.", secret=True)
    by_name: Mapping[str, str] = option(factory=dict, doc="Secrets.", secret=True)


@attrs.frozen(kw_only=True)
class Nest:
    one: Login | None = option(default=None, doc="A block.")
    many: tuple[Login, ...] = option(default=(), doc="A list of blocks.")
    named: Mapping[str, Login] = option(factory=dict, doc="Blocks by name.")
    either: Any = option(default=None, doc="One of two.", variants={"login": Login, "keys": Keys})
    deep: tuple[Chosen, ...] = option(default=(), doc="Kinds.", kinds="transformers")


def test_secrets_are_masked_however_deep_they_lie() -> None:
    login, keys = Login(password="hush"), Keys(words=("hush",), by_name={"hush": "hush"})
    inner = Chosen(kind=Kind(id="inner", config=Nest, build=list), config=Nest(one=login, either=keys))
    nest = Nest(one=login, many=(login, login), named={"a": login}, either=login, deep=(inner,))
    namer = Chosen(kind=Kind(id="nest", config=Nest, build=list), config=nest)
    shown = config_to_json(Config(routers=(), namers=(namer,)))
    assert "hush" not in json.dumps(shown)
    masked = {"password": MASK}
    kinds = {"kind": "inner", "one": masked, "either": {"kind": "keys", "words": MASK, "byName": MASK}}
    expected = {"one": masked, "many": [masked, masked], "named": {"a": masked}, "either": {"kind": "login", **masked}, "deep": [kinds]}
    assert shown["namers"] == [{"kind": "nest", **expected}]


def test_token_files_are_shown_and_not_what_is_in_them(loaded: Loaded, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hush-0123456789abcdef")
    admin = {"authentication": {"operatorTokenFile": str(file)}, "hostNames": ["mesh.corp"]}
    text = json.dumps({"admin": admin, "routers": [{"protocol": "http", "servers": [{}]}]})
    assert plain(loaded, text)["admin"] == admin


def test_secrets_are_not_in_the_repr(loaded: Loaded) -> None:
    text = "namers: [{kind: trial.namer, experimental: true, password: hush}]\nrouters: [{protocol: http, servers: [{}]}]"
    assert "hush" not in repr(loaded(text))


def test_shown_configuration_loads_again(loaded: Loaded, registry: Registry) -> None:
    text = "admin: {port: 5}\nrouters: [{protocol: http, client: {connectTimeoutMs: 7}, servers: [{ip: '::1'}]}]"
    first = plain(loaded, text)
    again = load(json.dumps(first), "again", registry).config
    assert again is not None
    assert config_to_json(again) == first


# --- what every kind declares

SUSPICIOUS = re.compile(r"password|passwd|secret|token|credential|auth$|api_?key|private", re.IGNORECASE)
NOT_SECRET = re.compile(r"file$|path$|env_?var$|header$|_ms$|cert|prefix$", re.IGNORECASE)


def classes(config: type[Any], seen: set[type[Any]]) -> None:
    """Collect a configuration class and those of the blocks in it."""
    if config in seen or not attrs.has(config):
        return
    seen.add(config)
    for field in fields_of(config):
        for kind in (field.type, element_of(field.type), mapped_of(field.type), *(field.option.variants or {}).values()):
            if isinstance(kind, type) and attrs.has(kind) and kind is not Chosen and not hasattr(kind, "read"):
                classes(kind, seen)


def test_options_that_sound_like_secrets_are_declared_as_such(registry: Registry) -> None:
    seen: set[type[Any]] = set()
    classes(Config, seen)
    for group in GROUPS:
        for id in registry.known(group):
            classes(registry.kind(group, id).config, seen)
    assert len(seen) > 50
    texts = [(config.__name__, field) for config in seen for field in fields_of(config) if field.type is str]
    suspects = [(name, field) for name, field in texts if SUSPICIOUS.search(field.attribute) and not NOT_SECRET.search(field.attribute)]
    assert [(name, field.name) for name, field in suspects if not field.option.secret] == []
    assert any(field.option.secret for _, field in suspects)
