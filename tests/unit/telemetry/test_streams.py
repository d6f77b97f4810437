from __future__ import annotations

from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.streams import MOST_CAUSES, UNREAD, Frames, StreamStats, laps
from meshgw.wire.h2_counts import Uncounted


def shown(snapshot: Snapshot) -> dict[str, int]:
    return {"/".join(names): value for names, value in snapshot.counters.items() if names[0] != "metrics" and value}


def test_streams_count_by_how_each_direction_ended() -> None:
    metrics = Metrics()
    stats = StreamStats(metrics)
    for cause in ("", "StreamReset"):
        stats.request.ended(10, 0.5, "")
        stats.response.ended(20, 0.0, cause)
        stats.whole.ended(30, 1.5, cause)
    stats.request.ended(0, 0.0, UNREAD)
    metrics.rotate()
    snapshot = metrics.snapshot()
    assert shown(snapshot) == {
        "request/stream/stream_success": 2,
        "request/stream/stream_failures": 1,
        "request/stream/stream_failures/Unread": 1,
        "response/stream/stream_success": 1,
        "response/stream/stream_failures": 1,
        "response/stream/stream_failures/StreamReset": 1,
        "stream/stream_success": 1,
        "stream/stream_failures": 1,
        "stream/stream_failures/StreamReset": 1,
    }
    figures = {"/".join(names): (window.count, window.total) for names, window in snapshot.histograms.items()}
    assert figures == {
        "request/stream/data_bytes": (3, 20),
        "request/stream/stream_duration_ms": (3, 1000),
        "response/stream/data_bytes": (2, 40),
        "response/stream/stream_duration_ms": (2, 0),
        "stream/data_bytes": (2, 60),
        "stream/total_latency_ms": (2, 3000),
    }


def test_histograms_of_streams_wait_for_the_end_of_the_interval() -> None:
    metrics = Metrics()
    StreamStats(metrics).request.ended(1, 1.0, "")
    assert metrics.snapshot().histograms == {}


def test_causes_that_are_invented_do_not_grow_without_end() -> None:
    metrics = Metrics()
    stats = StreamStats(metrics)
    for number in range(MOST_CAUSES * 2):
        stats.response.ended(0, 0.0, f"cause{number}")
    found = shown(metrics.snapshot())
    assert found["response/stream/stream_failures"] == MOST_CAUSES * 2
    assert found["response/stream/stream_failures/other"] == MOST_CAUSES
    assert len(found) == MOST_CAUSES + 2


def test_frames_are_counted_over_all_intervals_and_their_sizes_in_each() -> None:
    metrics = Metrics()
    frames = Frames(metrics)
    for size in (5, 5, 16384):
        frames.sent[size] += 1
    frames.trailers_received += 1
    frames.resets_sent += 2
    metrics.rotate()
    frames.sent[7] += 1
    snapshot = metrics.snapshot()
    assert shown(snapshot) == {"stream/local/data/frames": 4, "stream/local/reset": 2, "stream/remote/trailers": 1}
    window = snapshot.histograms["stream", "local", "data", "bytes"]
    assert (window.count, window.total) == (3, 16394)


def test_what_nobody_counts_is_kept_nowhere() -> None:
    counts = Uncounted()
    for size in range(1000):
        counts.sent[size] += 1
    assert len(counts.sent) == 0


def test_a_stream_that_is_complete_counts_as_if_its_parts_had_ended_one_by_one() -> None:
    at_once, one_by_one = Metrics(), Metrics()
    StreamStats(at_once).completed(10, 20, *laps(0.5, 0.0, 1.5))
    parts = StreamStats(one_by_one)
    parts.request.ended(10, 0.5, "")
    parts.response.ended(20, 0.0, "")
    parts.whole.ended(30, 1.5, "")
    for metrics in (at_once, one_by_one):
        metrics.rotate()
    assert at_once.snapshot() == one_by_one.snapshot()
