"""``coco-kp bench`` measures; how fast, no test says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coco_kp.cli.main import run
from coco_kp.crypto import kernel


def test_bench_measures_every_case_and_removes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("coco_kp.cli.bench.processors", lambda: 2)
    assert run(["bench", "--size", "1", "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["kernel"] == kernel()
    assert measured["sha256_bytes_per_second"] > 0
    assert len(measured["cases"]) == 5
    assert all(case["bytes_per_second"] > 0 < case["ratio"] for case in measured["cases"])
    assert list(tmp_path.iterdir()) == []


def test_bench_on_one_core_measures_one_core_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coco_kp.cli.bench.processors", lambda: 1)
    assert run(["bench", "--size", "1"]) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "SHA-256 (OpenSSL), one core",
        "encrypt, file to file, one core",
        "decrypt, file to file, one core",
    ]
