from __future__ import annotations

import pytest

from meshgw.admin.security import AdminSecurity, refusal


def test_everything_is_served_by_default() -> None:
    assert all(AdminSecurity().serves(path) for path in ("/", "/admin/shutdown", "/anything"))


@pytest.mark.parametrize(
    ("disabled", "paths"),
    [
        ("ui_enabled", ["/", "/config.json", "/admin/metrics.json", "/delegator.json", "/files/x/y.js", "/logging"]),
        ("control_enabled", ["/admin/shutdown", "/logging.json"]),
        ("diagnostics_enabled", ["/admin/ping", "/admin/metrics/prometheus", "/client_state.json", "/nothing"]),
    ],
)
def test_disabled_category_rejects_its_paths_only(disabled: str, paths: list[str]) -> None:
    security = AdminSecurity(**{disabled: False})
    others = {"/", "/admin/shutdown", "/admin/ping"} - set(paths)
    assert not any(security.serves(path) for path in paths)
    assert all(security.serves(path) for path in others)


def test_whitelist_opens_a_disabled_category_and_blacklist_prevails() -> None:
    security = AdminSecurity(diagnostics_enabled=False, whitelist=["/admin/.*"], blacklist=["/admin/p.*"])
    assert security.serves("/admin/threads")
    assert not security.serves("/admin/ping") and not security.serves("/client_state.json")


def test_patterns_match_the_whole_path() -> None:
    assert AdminSecurity(blacklist=["/admin"]).serves("/admin/ping")


def test_bad_pattern_is_named() -> None:
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        AdminSecurity(whitelist=["("])


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        ("127.0.0.1:9990", None, None),
        ("anything", None, None),
        ("127.0.0.1:9990", "http://127.0.0.1:9990", "same-origin"),
        ("[::1]:9990", "http://[::1]:9990", None),
        ("localhost:9990", "http://localhost:9990", None),
        ("Mesh.corp:9990", "http://mesh.corp:9990", "same-origin"),
        ("127.0.0.1:9990", None, "none"),
    ],
)
def test_own_pages_and_plain_clients_may_change(host: str, origin: str | None, site: str | None) -> None:
    assert refusal(host, origin, site, {"mesh.corp"}) is None


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        ("127.0.0.1:9990", "http://evil.example", None),
        ("127.0.0.1:9990", "null", None),
        ("127.0.0.1:9990", "http://127.0.0.1:8080", None),
        ("127.0.0.1:9990", None, "cross-site"),
        ("127.0.0.1:9990", "http://127.0.0.1:9990", "same-site"),
        ("evil.example:9990", "http://evil.example:9990", "same-origin"),
        ("127.0.0.1:9990", "http://[bad", None),
    ],
)
def test_foreign_pages_may_not_change(host: str, origin: str | None, site: str | None) -> None:
    assert refusal(host, origin, site, ()) is not None
