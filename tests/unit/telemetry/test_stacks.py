"""Stacks of threads, now and over a while, and their form for pprof, read with an independent reader of protocol buffers."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from meshgw.telemetry.pprof import encode_profile
from meshgw.telemetry.stacks import DEEPEST, collapsed, sample, threads


@pytest.fixture
def waiter() -> Iterator[threading.Thread]:
    """A thread that waits, with a name that means something in the text form."""
    event = threading.Event()

    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        else:
            event.wait()

    thread = threading.Thread(target=deep, args=(100,), name="one;two", daemon=True)
    thread.start()
    yield thread
    event.set()
    thread.join()


def test_each_thread_tells_its_name_and_stack(waiter: threading.Thread) -> None:
    found = threads()
    own = found[str(threading.get_ident())]
    assert own["state"] == "answers this" and own["stack"][0].startswith("threads (meshgw/telemetry/stacks.py:")
    other = found[str(waiter.ident)]
    assert (other["thread"], other["daemon"], other["state"]) == ("one;two", True, "waiting")
    assert len(other["stack"]) == DEEPEST and other["stack"][0].startswith("Condition.wait (threading.py:")


def test_samples_have_the_outermost_frame_first_and_none_of_the_sampler(waiter: threading.Thread) -> None:
    found: list[dict[str, int]] = []
    sampler = threading.Thread(target=lambda: found.append(sample(0.2, 250, threading.Event())))
    sampler.start()
    sampler.join()
    waiting = [stack for stack in found[0] if stack.startswith("one,two;")]
    assert len(waiting) == 1 and found[0][waiting[0]] > 5
    assert waiting[0].rpartition(";")[2].startswith("Condition.wait ") and "sample (" not in "".join(found[0])


def test_sampling_ends_when_it_is_told_to() -> None:
    stopped = threading.Event()
    stopped.set()
    assert sample(60.0, 100, stopped) == {}


def test_the_text_form_has_the_most_frequent_stack_first() -> None:
    assert collapsed({"a;b": 1, "a;c": 3}) == "a;c 3\na;b 1\n"


def message(number: int, name: str, fields: dict[str, tuple[int, str]]) -> Any:
    """A message type of pprof's description: field name → number and type, of which ``*`` marks repeated ones."""
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2")
    made = descriptor.DescriptorProto(name=name)
    kinds = {"int64": 3, "uint64": 4, "string": 9}
    for field, (at, kind) in fields.items():
        bare = kind.rstrip("*")
        label = 3 if kind.endswith("*") else 1
        if bare in kinds:
            made.field.add(name=field, number=at, type=kinds[bare], label=label)
        else:
            made.field.add(name=field, number=at, type=11, type_name=f".pprof{number}.{bare}", label=label)
    return made


def profile_type() -> Any:
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2")
    factory = pytest.importorskip("google.protobuf.message_factory")
    file = descriptor.FileDescriptorProto(name="profile.proto", package="pprof1", syntax="proto3")
    types = {
        "ValueType": {"type": (1, "int64"), "unit": (2, "int64")},
        "Sample": {"location_id": (1, "uint64*"), "value": (2, "int64*")},
        "Line": {"function_id": (1, "uint64"), "line": (2, "int64")},
        "Location": {"id": (1, "uint64"), "line": (4, "Line*")},
        "Function": {"id": (1, "uint64"), "name": (2, "int64"), "system_name": (3, "int64"), "filename": (4, "int64")},
        "Profile": {
            **{"sample_type": (1, "ValueType*"), "sample": (2, "Sample*"), "location": (4, "Location*"), "function": (5, "Function*")},
            **{"string_table": (6, "string*"), "time_nanos": (9, "int64"), "duration_nanos": (10, "int64")},
            **{"period_type": (11, "ValueType"), "period": (12, "int64")},
        },
    }
    for name, fields in types.items():
        file.message_type.append(message(1, name, fields))
    return factory.GetMessages([file])["pprof1.Profile"]


def test_a_profile_is_read_by_the_description_of_its_format() -> None:
    stacks = {"Main;run (a.py:7);work (b.py:300)": 3, "Main;run (a.py:7)": 200}
    data = encode_profile(stacks, hz=100, seconds=2.0, at=1_700_000_000.0)
    profile = profile_type().FromString(gzip.decompress(data))
    texts = list(profile.string_table)
    assert texts[0] == ""
    assert [(texts[kind.type], texts[kind.unit]) for kind in profile.sample_type] == [("samples", "count"), ("wall", "nanoseconds")]
    functions = {one.id: (texts[one.name], texts[one.filename]) for one in profile.function}
    places = {one.id: (*functions[one.line[0].function_id], one.line[0].line) for one in profile.location}
    read = {tuple(places[number] for number in one.location_id): list(one.value) for one in profile.sample}
    assert read == {
        (("work", "b.py", 300), ("run", "a.py", 7), ("Main", "", 0)): [3, 30_000_000],
        (("run", "a.py", 7), ("Main", "", 0)): [200, 2_000_000_000],
    }
    assert (profile.period, profile.duration_nanos, profile.time_nanos) == (10_000_000, 2_000_000_000, 1_699_999_998_000_000_000)
