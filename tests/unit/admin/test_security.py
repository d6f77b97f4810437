from __future__ import annotations

import pytest

from meshgw.admin.security import AdminSecurity, rebinding, refusal


def test_everything_is_served_by_default() -> None:
    assert all(AdminSecurity().serves(path) for path in ("/", "/admin/shutdown", "/anything"))


@pytest.mark.parametrize(
    ("disabled", "paths"),
    [
        ("ui_enabled", ["/", "/config.json", "/admin/metrics.json", "/delegator.json", "/files/x/y.js", "/logging"]),
        ("control_enabled", ["/admin/shutdown", "/admin/reload", "/logging.json"]),
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


@pytest.mark.parametrize("path", ["/admin/threads", "/admin/thr%65ads", "/%61dmin/threads", "/admin%2Fthreads"])
def test_blacklist_holds_for_escaped_paths_too(path: str) -> None:
    assert not AdminSecurity(blacklist=["/admin/threads"]).serves(path)


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


CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"


def rebound(**fields: str) -> str | None:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return rebinding(headers.get, {"mesh.corp"})


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "meshgw.default.svc:9990", "user_agent": "Prometheus/2.53.0", "accept_encoding": "gzip"},
        {"host": "10.1.2.3:9990", "user_agent": "kube-probe/1.30"},
        {"host": "anything:9990"},
        {},
        {"host": "mesh.corp:9990", "user_agent": CHROME},
        {"host": "MESH.CORP.:9990", "user_agent": CHROME},
        {"host": "localhost", "user_agent": CHROME, "accept_language": "en"},
        {"host": "127.0.0.1:9990", "user_agent": CHROME},
        {"host": "[::1]:9990", "user_agent": CHROME, "origin": "http://[::1]:9990"},
    ],
)
def test_programs_may_use_any_name_and_browsers_known_ones(fields: dict[str, str]) -> None:
    assert rebound(**fields) is None


@pytest.mark.parametrize(
    "mark",
    [
        {"user_agent": CHROME},
        {"user_agent": "", "accept_language": "en"},
        {"user_agent": "curl/8.0", "accept_language": ""},
        {"origin": "http://evil.example:9990"},
        {"sec_fetch_site": "same-origin"},
        {"referer": "http://evil.example:9990/"},
    ],
)
def test_browsers_by_a_foreign_name_are_refused(mark: dict[str, str]) -> None:
    why = rebound(host="evil.example:9990", **mark)
    assert why is not None and "'evil.example'" in why and "admin.hostNames" in why


@pytest.mark.parametrize(
    "host", ["", "[x", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example@127.0.0.1.nip.io", "2130706433"]
)
def test_odd_hosts_are_foreign_to_browsers(host: str) -> None:
    assert rebound(host=host, user_agent=CHROME) is not None
