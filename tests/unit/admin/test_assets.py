from __future__ import annotations

import re

import pytest

from meshgw.admin.assets import Assets, content_type, is_current, packaged

FILES = {"a.js": b"one", "b.css": b"two", "favicon.svg": b"<svg/>"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.js", "text/javascript;charset=UTF-8"),
        ("x.css", "text/css;charset=UTF-8"),
        ("x.SVG", "image/svg+xml;charset=UTF-8"),
        ("x.min.json", "application/json;charset=UTF-8"),
        ("x.jpeg", "image/jpeg;charset=UTF-8"),
        ("x.woff2", "application/octet-stream"),
        ("js", "application/octet-stream"),
    ],
)
def test_the_type_is_told_by_the_extension(name: str, expected: str) -> None:
    assert content_type(name) == expected


def test_every_file_is_there_under_both_prefixes_with_and_without_the_digest() -> None:
    assets = Assets(FILES)
    paths = [f"{prefix}{middle}/a.js" for prefix in ("/admin/files", "/files") for middle in ("", f"/{assets.digest}")]
    assert [assets.by_path[path].body for path in paths] == [b"one"] * 4
    assert assets.by_path["/favicon.ico"].body == b"<svg/>"
    assert assets.by_path[assets.url("b.css")].body == b"two"


def test_only_what_is_named_by_its_digest_is_kept_for_good() -> None:
    assets = Assets(FILES)
    assert "immutable" in assets.by_path[assets.url("a.js")].cache_control
    assert assets.by_path["/admin/files/a.js"].cache_control == assets.by_path["/favicon.ico"].cache_control == "no-cache"


@pytest.mark.parametrize("changed", [{**FILES, "a.js": b"other"}, {**FILES, "c.js": b""}, {"a.jsone": b"", "b.css": b"two"}])
def test_the_digest_differs_when_any_file_or_name_does(changed: dict[str, bytes]) -> None:
    assert Assets(changed).digest != Assets(FILES).digest


def test_the_digest_is_the_same_in_every_process() -> None:
    assert Assets(dict(reversed(FILES.items()))).digest == Assets(FILES).digest


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], False),
        (['"abc"'], True),
        (['W/"abc"'], True),
        (['"x", "abc"'], True),
        (['"x"', '"abc"'], True),
        (["*"], True),
        (['"x"'], False),
        (["abc"], False),
        ([""], False),
    ],
)
def test_a_client_has_the_file_if_it_names_its_tag(fields: list[str], expected: bool) -> None:
    assert is_current('"abc"', fields) is expected


def test_everything_that_the_packaged_files_import_or_refer_to_is_packaged() -> None:
    served = packaged().by_path
    scripts = {path: asset.body.decode() for path, asset in served.items() if path.endswith(".js") and path.count("/") == 2}
    assert scripts
    for path, text in scripts.items():
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert f"/files/{name}" in served, f"{path} imports {name}"


def test_no_packaged_file_leads_to_another_server() -> None:
    for path, asset in packaged().by_path.items():
        found = set(re.findall(rb"https?://[^\s\"'`)<]+", asset.body)) - {b"http://www.w3.org/2000/svg"}
        assert not [url for url in found if not url.startswith((b"http://${", b"https://${", b"http://127.0.0.1"))], path
