"""A server under load, with a KBS that is killed: ``python -m benches.soak`` does it for long."""

from __future__ import annotations

from pathlib import Path

from coco_kp.http.client import CONNECTIONS_PER_HOST
from tests.support.soak import soak


def test_server_under_load_answers_all_that_needs_no_killed_kbs_and_lets_go(tmp_path: Path) -> None:
    report = soak(tmp_path, 6.0, 16)
    for (phase, operation, code), count in report.ends.items():
        expected = {"OK", "UNAVAILABLE"} if operation == "unwrap" and "KBS" in phase else {"OK"}
        assert code in expected, (phase, operation, code, count)
    assert report.ends["without KBS", "unwrap", "UNAVAILABLE"]
    for phase in ("before", "without KBS", "after"):
        assert report.ends[phase, "wrap", "OK"]
    assert report.ends["after", "unwrap", "OK"]
    start, idle = report.usage["start"], report.usage["idle"]
    assert idle.threads <= start.threads
    assert idle.files <= start.files + CONNECTIONS_PER_HOST  # to the KBS, kept for later
    assert idle.memory < start.memory + 32 * 1024
