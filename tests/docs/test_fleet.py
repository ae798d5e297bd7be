"""The commands of the page on many images, run as they stand, on twenty repositories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from distributed import LocalCluster

from tests.docs.reader import Reader
from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.support.many_images import Results, images, push
from tests.support.markdown import blocks


@pytest.mark.peer
def test_commands_of_fleets_run_as_written(tmp_path: Path) -> None:
    storage, folder = tmp_path / "registry", tmp_path / "reader"
    storage.mkdir()
    folder.mkdir()
    fleet = images(20, 1)
    with registry(debian_bin() / "docker-registry", storage) as address:
        push(address, fleet)
        Reader(folder, REGISTRY=address).run("\n".join(blocks("docs/fleet.md", "sh")))
    results = Results(folder / "results.jsonl")
    assert results.outcomes == {"done": 20 + 2 + 2}
    assert [line["did"] for line in results.lines[20:22]] == ["rewrap"] * 2
    assert Results(folder / "again.jsonl").outcomes == {"unchanged": 20}
    assert (folder / "failed.jsonl").read_text() == ""
    assert len((folder / "plan.jsonl").read_text().splitlines()) == 20
    assert "<html" in (folder / "report.html").read_text()
    assert 'kind: "Job"' in (folder / "job.yaml").read_text()
    assert json.loads((folder / "verify.jsonl").read_text().splitlines()[0])["action"] == "verify"


@pytest.mark.peer
@pytest.mark.full
@pytest.mark.xdist_group("dask")
def test_commands_of_fleets_on_dask_run_as_written(tmp_path: Path) -> None:
    storage, folder = tmp_path / "registry", tmp_path / "reader"
    storage.mkdir()
    folder.mkdir()
    keys_and_plan = blocks("docs/fleet.md", "sh")[:2]
    with (
        registry(debian_bin() / "docker-registry", storage) as address,
        LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
    ):
        push(address, images(3, 2))
        reader = Reader(folder, REGISTRY=address, SCHEDULER=str(cluster.scheduler_address))
        reader.run("\n".join([*keys_and_plan, *blocks("docs/fleet.md", "bash")]))
    assert Results(folder / "cluster.jsonl").outcomes == {"done": 6}
