"""The processors that a process may use, with faked descriptions of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coco_kp.processors import processors

HOST = 16
"""The processors that the process may run on, in all tests."""

POD = "/kubepods/pod7"


@pytest.fixture(autouse=True)
def _affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(HOST)))


class Process:
    """A process as the kernel describes it, in a hierarchy of groups of its own."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mounted = folder / "proc", folder / "cgroup fs"
        self.proc.mkdir()
        self.mounted.mkdir()
        self.in_group("/")
        self.mount("cgroup2", "rw")

    def in_group(self, group: str, controllers: str = "") -> None:
        (self.proc / "cgroup").write_text(f"7:memory:/elsewhere\n0:{controllers}:{group}\n")

    def mount(self, kind: str, options: str, root: str = "/") -> None:
        place = str(self.mounted).replace(" ", "\\040")
        (self.proc / "mountinfo").write_text(
            f"23 1 0:2 / /proc rw - proc proc rw\n"
            f"31 23 0:28 {root} {place} rw,relatime shared:9 - {kind} {kind} {options}\n"
        )

    def allow(self, group: str, files: dict[str, str]) -> None:
        folder = self.mounted / group.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")

    @property
    def processors(self) -> int:
        return processors(self.proc)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def v2(quota: str) -> dict[str, str]:
    return {"cpu.max": quota}


def v1(quota: int, period: int = 100_000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": str(quota), "cpu.cfs_period_us": str(period)}


def test_processors_of_this_process_are_at_most_those_that_it_may_run_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert 1 <= processors() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", HOST),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("3200000 100000", HOST),
    ],
)
def test_processors_are_those_of_the_quota_rounded_up(
    process: Process, quota: str, expected: int
) -> None:
    process.allow("/", v2(quota))
    assert process.processors == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, HOST), (300_000, 3)])
def test_processors_of_version_1_are_those_of_its_quota(
    process: Process, quota: int, expected: int
) -> None:
    process.in_group(POD, "cpu,cpuacct")
    process.mount("cgroup", "rw,cpu,cpuacct")
    process.allow(POD, v1(quota))
    assert process.processors == expected


def test_processors_are_bounded_by_the_strictest_of_the_groups_above(process: Process) -> None:
    process.in_group(f"{POD}/container")
    process.allow(f"{POD}/container", v2("800000 100000"))
    process.allow(POD, v2("400000 100000"))
    process.allow("/kubepods", v2("max 100000"))
    assert process.processors == 4


def test_processors_of_a_container_that_sees_the_hosts_names_are_its_own_groups(
    process: Process,
) -> None:
    process.in_group(f"{POD}/container")
    process.mount("cgroup2", "rw", root=POD)
    process.allow("/container", v2("300000 100000"))
    process.allow("/", v2("500000 100000"))
    assert process.processors == 3


def test_processors_of_a_container_whose_group_is_not_mounted_are_the_mounted_ones(
    process: Process,
) -> None:
    process.in_group("/docker/1234", "cpu")
    process.mount("cgroup", "rw,cpu", root="/docker/5678")
    process.allow("/", v1(200_000))
    assert process.processors == 2


@pytest.mark.parametrize(
    "files",
    [
        {},
        v2(""),
        v2("many 100000"),
        v2("100000 0"),
        v2("nan 100000"),
        v1(100_000, 0),
        {"cpu.cfs_quota_us": "1"},
    ],
)
def test_processors_are_the_hosts_where_a_group_says_nothing(
    process: Process, files: dict[str, str]
) -> None:
    process.allow("/", files)
    assert process.processors == HOST


@pytest.mark.parametrize("name", ["cgroup", "mountinfo"])
@pytest.mark.parametrize("text", [None, "", "nonsense", "1:2"])
def test_processors_are_the_hosts_where_the_kernel_describes_no_groups(
    process: Process, name: str, text: str | None
) -> None:
    process.allow("/", v2("100000 100000"))
    described = process.proc / name
    described.unlink()
    if text is not None:
        described.write_text(text)
    assert process.processors == HOST
