"""Single checks and the helpers around values."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.document import all_of, at_least, between, one_of, option, yaml_name
from meshgw.config.nodes import Block, Scalar, locate, read_nodes
from meshgw.config.problems import near, pointed, position, quote
from meshgw.config.values import MOST_WORKERS, Workers, header_name, roll_policy
from meshgw.telemetry.rolling import RollPolicy


def test_checks_say_what_was_expected() -> None:
    assert at_least(1)(1) is None
    assert at_least(1)(0) == "must be at least 1, not 0"
    assert between(0, 1)(2) == "must be between 0 and 1, not 2"
    assert one_of("a", "b")("c") == "must be one of a, b, not c"
    assert all_of(at_least(1), between(0, 5))(6) == "must be between 0 and 5, not 6"


def test_yaml_name_is_camel_case_unless_given() -> None:
    @attrs.frozen(kw_only=True)
    class Sample:
        idle_ttl_secs: int = option(doc="x")
        max_headers_kb: int = option(doc="x", name="maxHeadersKB")

    assert [yaml_name(attribute) for attribute in attrs.fields(Sample)] == ["idleTtlSecs", "maxHeadersKB"]


@pytest.mark.parametrize("name", ["x-time", "X!"])
def test_header_name_is_a_token(name: str) -> None:
    assert header_name(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a:", "é"])
def test_other_text_is_no_header_name(name: str) -> None:
    assert header_name(name) is not None


@given(
    st.sampled_from(["never", "Daily", "hourly", "weekly(1)", "weekly(8)", "weekly", "3.megabytes", "0.bytes", "1.byte", "x"]) | st.text()
)
def test_roll_policy_check_agrees_with_its_reader(text: str) -> None:
    try:
        RollPolicy.read(text)
    except ValueError:
        assert roll_policy(text) is not None
    else:
        assert roll_policy(text) is None


def test_nearest_word_ignores_case() -> None:
    assert near("MAXHEADERSKB", ["maxHeadersKB", "dtab"]) == "did you mean 'maxHeadersKB'?"
    assert near("zzz", ["dtab"]) is None


def test_long_text_is_cut_in_quotes() -> None:
    assert len(quote("x" * 1000)) < 70


@given(st.text(alphabet="ab\n\t é", max_size=300), st.integers(-5, 310))
def test_caret_stands_below_its_character(text: str, index: int) -> None:
    line, mark = pointed(text, index)
    row, column = position(text, index)
    assert mark.endswith("^") and "\n" not in line
    assert row >= 1 and column >= 1


@given(st.lists(st.sampled_from(["/svc", "=>", ";", "\n", "x y", "#"]), min_size=1, max_size=12).map(" ".join))
def test_place_in_a_block_scalar_is_found(content: str) -> None:
    indented = "".join(f"    {line}\n" for line in content.split("\n"))
    text = f"before: 1\nkey: |\n{indented}after: 2\n"
    root = read_nodes(text)
    assert isinstance(root, Block)
    scalar = next(value for key, value in root.entries if key.text == "key")
    assert isinstance(scalar, Scalar)
    for offset, char in enumerate(scalar.text):
        if not char.isspace():
            place = locate(text, scalar, offset)
            assert place is not None and text[place] == char


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_text_gives_its_strings(document: object) -> None:
    import json

    def strings(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for key, inner in value.items() for text in [str(key), *strings(inner)]]
        if isinstance(value, list):
            return [text for inner in value for text in strings(inner)]
        return [value] if isinstance(value, str) else []

    def found(node: object) -> list[str]:
        if isinstance(node, Block):
            return [text for key, inner in node.entries for text in [key.text, *found(inner)]]
        if isinstance(node, Scalar):
            return [] if node.plain else [node.text]
        return [text for inner in getattr(node, "items", ()) for text in found(inner)]

    assert found(read_nodes(json.dumps({"a": document}, indent="\t"))) == ["a", *strings(document)]


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("4", 4), (" 16 ", 16), ("007", 7), (str(MOST_WORKERS), MOST_WORKERS)])
def test_workers_are_a_number(text: str, count: int) -> None:
    assert Workers.read(text) == Workers(count)
    assert Workers.read(Workers.read(text).show()) == Workers(count)


@pytest.mark.parametrize("text", ["auto", "AUTO", " auto "])
def test_auto_is_one_worker_for_each_cpu_that_may_be_used(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 2, 5}, raising=False)
    assert Workers.read(text) == Workers(3, is_auto=True)
    assert Workers.read(text).show() == "auto"
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(1000)), raising=False)
    assert Workers.read(text).count == MOST_WORKERS


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "two", "½", "٣", "1_0", "257", "9" * 30, "automatic"])
def test_other_text_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(ValueError, match="expected auto or a number from 1 to 256, found"):
        Workers.read(text)
