"""Forms of the access log as they are written in the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.access_format import FIELDS, JSON_FIELDS, AccessForm, FieldPart, access_format
from meshgw.config.loader import load
from meshgw.kinds import Registry


def test_linkerds_own_form_is_the_default_one() -> None:
    assert AccessForm.read("linkerd").is_default
    assert not AccessForm.read("combined").is_default


def test_a_text_is_literals_and_fields_in_their_order() -> None:
    assert AccessForm.read('%{host} "%{header:X-Request-ID}" 100%%').parts == (
        FieldPart("host"),
        ' "',
        FieldPart("header", "x-request-id", is_quoted=True),
        '" 100%',
    )


def test_json_has_its_own_fields_or_those_that_are_listed() -> None:
    assert tuple(part.label for part in AccessForm.read("json").fields) == JSON_FIELDS
    listed = AccessForm.read("json(status, header:X-A)")
    assert listed.is_json and [part.label for part in listed.fields] == ["status", "header:x-a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("%{staus}", "unknown field 'staus'; known: time, "),
        ("%{staus}", "did you mean 'status'?"),
        ("json(satus)", "did you mean 'status'?"),
        ("json(status,status)", "a field is listed twice"),
        ("json()", "unknown field ''"),
        ("jsn", "did you mean 'json'?"),
        ("plain", "'plain' is no form of the access log"),
        ("", "is no form of the access log"),
        ("%h %{status}", "a percent sign at '%h %{statu' begins no %{field}; write %% for the sign itself"),
        ("%{status", "begins no %{field}"),
        ("%{status}\n", "cannot have line breaks"),
        ("%{header:a b}", "'a b' cannot be the name of a header"),
        ("%{header:}", "cannot be the name of a header"),
        ("%{trailer:x}", "unknown field 'trailer:x'"),
        ("%{status}" * 65, "65 fields; at most 64"),
    ],
)
def test_what_is_no_form_is_refused_with_what_was_expected(text: str, told: str) -> None:
    assert told in (access_format(text) or "")


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        AccessForm.read(text)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(("protocol", "prefix"), [("http", "http"), ("h2", "h2")])
def test_both_protocols_have_the_option(protocol: str, prefix: str) -> None:
    text = f"routers: [{{protocol: {protocol}, {prefix}AccessLog: '-', {prefix}AccessLogFormat: FORM, servers: [{{}}]}}]"
    config = load(text.replace("FORM", "json"), "a.yml", Registry()).config
    assert config is not None and config.routers[0].config.access_format == "json"
    (problem,) = load(text.replace("FORM", "'%{stauts}'"), "a.yml", Registry()).problems
    assert problem.path == f"routers[0].{prefix}AccessLogFormat" and "did you mean 'status'?" in problem.message


def test_every_field_is_described() -> None:
    assert all(FIELDS.values())
