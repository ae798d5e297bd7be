"""A fleet on a Dask cluster: a real scheduler, and workers that are processes of their own."""

from __future__ import annotations

import _thread
import base64
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import cloudpickle
import pytest
from distributed import Client, LocalCluster

from coco_kp.crypto import Kek
from coco_kp.fleet.dask import DaskEngine
from coco_kp.fleet.keys import KeyRing
from coco_kp.fleet.lines import PlanLine, ResultLine, read_plan
from coco_kp.transport import Access
from tests.sim.http_server import BreakOff, Request
from tests.sim.registry import Registry
from tests.support.command import KID, Command
from tests.support.many_images import PLAIN_HTTP, Results, images, push
from tests.support.signals import heeding

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("dask")]

FLEET = images(3, 2)


def _cluster(workers: int) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with _cluster(2) as running:
        yield running


@pytest.fixture
def host(host: str, registry: Registry) -> str:
    push(host, FLEET)
    registry.seen.clear()
    return host


class Fleet:
    """A plan, and its runs on the cluster."""

    def __init__(self, command: Command, host: str, key: Path, folder: Path, address: str) -> None:
        self.command = command
        self.host = host
        self.key = key
        self.address = address
        self.plan = folder / "plan.jsonl"
        self.results = folder / "results.jsonl"
        command(
            *("fleet", "plan", *(f"docker://{host}/team/app{n}" for n in range(3))),
            *("--tls-verify=false", "-o", self.plan, "--to"),
            f"docker://{host}/sealed/{{repository}}:{{tag}}",
            *("--recipient", f"keyid={KID},keypath={key}"),
        )

    def run(self, *more: object, code: int = 0) -> Results:
        """Run the plan on the cluster."""
        self.results.unlink(missing_ok=True)
        line = ("fleet", "run", self.plan, "--dask", self.address, "--results", self.results)
        outcome = self.command(*line, *PLAIN_HTTP, *more, ok=False)
        assert outcome.code == code, outcome.err
        return Results(self.results)

    def verify(self) -> None:
        """Verify all copies."""
        for repository, tag in FLEET:
            image = f"docker://{self.host}/sealed/{repository}:{tag}"
            self.command("verify", image, "--tls-verify=false", "--keypath", self.key)


@pytest.fixture
def fleet(command: Command, host: str, key: Path, tmp_path: Path, cluster: LocalCluster) -> Fleet:
    return Fleet(command, host, key, tmp_path, str(cluster.scheduler_address))


def test_cluster_does_each_image_once_and_then_nothing(fleet: Fleet) -> None:
    assert fleet.run().outcomes == {"done": 6}
    fleet.verify()
    assert fleet.run().outcomes == {"unchanged": 6}


def test_image_whose_worker_is_killed_inside_it_is_done_by_another(
    fleet: Fleet, registry: Registry, cluster: LocalCluster
) -> None:
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        pids = client.run(os.getpid)
        killed: list[int] = []

        def kill(request: Request) -> BreakOff | None:
            """Kill who works, the first time that a copy is about to get its name."""
            if killed or request.method != "PUT" or "/manifests/" not in request.path:
                return None
            working = [worker for worker, tasks in client.processing().items() if tasks]
            for worker in working:
                killed.append(pids[worker])
                os.kill(pids[worker], signal.SIGKILL)
            return BreakOff()

        registry.faults.append(kill)
        assert fleet.run().outcomes in [{"done": 6}, {"done": 5, "unchanged": 1}]
        assert killed
        assert not set(client.run(os.getpid).values()) & set(killed)
    fleet.verify()


def test_worker_that_has_another_key_does_nothing(fleet: Fleet, registry: Registry) -> None:
    submit, key = DaskEngine.submit, fleet.key.read_bytes()

    def exchange_and_submit(engine: DaskEngine, line: PlanLine) -> Future[ResultLine]:
        fleet.key.with_name("other").write_bytes(os.urandom(32))
        fleet.key.with_name("other").replace(fleet.key)
        return submit(engine, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DaskEngine, "submit", exchange_and_submit)
        results = fleet.run(code=4)
    assert results.outcomes == {"refused": 6}
    assert all("not the same here" in line["error"]["message"] for line in results.lines)
    assert not [request for request in registry.seen if request.method == "PUT"]
    fleet.key.write_bytes(key)
    assert fleet.run().outcomes == {"done": 6}
    fleet.verify()


def test_workers_take_a_key_that_was_exchanged_between_two_runs(
    fleet: Fleet, registry: Registry
) -> None:
    fleet.run()
    fleet.key.write_bytes(os.urandom(32))
    for name in [name for name in registry.manifests if name[0].startswith("sealed/")]:
        del registry.manifests[name]
    assert fleet.run().outcomes == {"done": 6}
    fleet.verify()


def test_image_that_kills_each_of_its_workers_fails_alone(
    fleet: Fleet, registry: Registry, cluster: LocalCluster
) -> None:
    with Client(cluster.scheduler_address, set_as_default=False) as client:

        def kill(request: Request) -> BreakOff | None:
            if "/sealed/team/app0/manifests/0" not in request.path or request.method != "PUT":
                return None
            for worker, tasks in client.processing().items():
                if tasks:
                    os.kill(client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
            return BreakOff()

        registry.faults.append(kill)
        results = fleet.run(code=6)
    assert results.outcomes["failed"] == 1
    (failed,) = [line for line in results.lines if line["outcome"] == "failed"]
    assert failed["line"]["source"].endswith("team/app0:0")
    assert "no worker of the cluster did it: KilledWorker" in failed["error"]["message"]


def test_interrupted_run_tells_of_no_failure_and_goes_on_later(
    fleet: Fleet, registry: Registry
) -> None:
    once = threading.Lock()

    def interrupt(request: Request) -> None:
        moves = request.method == "PUT" and "/manifests/" in request.path
        if moves and once.acquire(blocking=False):
            _thread.interrupt_main()

    registry.faults.append(interrupt)
    with heeding(signal.SIGINT):
        interrupted = fleet.run(code=130)
    assert "failed" not in interrupted.outcomes, interrupted.lines
    assert set(fleet.run().outcomes) <= {"done", "unchanged"}
    fleet.verify()


class Scripted:
    """A client of a cluster that does nothing."""

    sent: ClassVar[list[bytes]] = []
    futures: ClassVar[list[Future[str]]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.sent.clear()
        self.futures.clear()

    def get_executor(self) -> Scripted:
        return self

    def submit(self, *arguments: object, **more: object) -> Future[str]:
        self.sent.append(cloudpickle.dumps((arguments, more)))
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, *, wait: bool) -> None:
        assert not wait
        for future in self.futures:
            future.cancel()

    def close(self) -> None:
        pass


def test_line_that_was_taken_back_has_no_result(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed.Client", Scripted)
    engine = DaskEngine("tcp://127.0.0.1:1", Access(), Access(), KeyRing(pytest.fail))
    told = engine.submit(next(read_plan(fleet.plan)))
    engine.end()
    assert told.cancelled()


def test_result_of_another_line_is_none_of_the_line_that_was_sent(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed.Client", Scripted)
    engine = DaskEngine("tcp://127.0.0.1:1", Access(), Access(), KeyRing(pytest.fail))
    sent, other = list(read_plan(fleet.plan))[:2]
    told = engine.submit(sent)
    done = ResultLine(other, "done", "encrypt", other.digest, "2026-01-31T12:00:00Z", 1.0)
    Scripted.futures[-1].set_result(done.to_json())
    result = told.result()
    assert (result.line, result.outcome, result.exit_code) == (sent, "refused", 3)
    engine.end()


def test_run_without_the_extra_says_how_to_have_it(
    fleet: Fleet, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = command("fleet", "run", fleet.plan, "--dask", fleet.address, ok=False)
    assert outcome.code == 3
    assert "pip install 'coco-kp[fleet]'" in outcome.err


def test_jobs_of_this_machine_and_a_cluster_are_not_wanted_at_once(
    fleet: Fleet, command: Command
) -> None:
    line = ("fleet", "run", fleet.plan, "--dask", fleet.address, "--jobs", "2")
    assert command(*line, ok=False).code == 2


def test_task_holds_no_key_and_no_credentials(
    fleet: Fleet, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = command(
        *("fleet", "run", fleet.plan, "--dask", fleet.address, "--src-creds", "user:secret"),
        ok=False,
    )
    assert outcome.code == 2
    assert "do not reach the workers" in outcome.err
    key, ring = fleet.key.read_bytes(), KeyRing(pytest.fail)
    (line, *_) = read_plan(fleet.plan)
    assert len(ring.of(line).recipients) == 1
    monkeypatch.setattr("distributed.Client", Scripted)
    DaskEngine("tcp://127.0.0.1:1", Access(), Access(), ring).submit(line)
    (task,) = Scripted.sent
    assert str(fleet.key).encode() in task
    assert Kek(key).fingerprint.encode() in task
    for form in (key, key.hex().encode(), base64.b64encode(key)):
        assert form not in task


def test_run_whose_scheduler_goes_away_ends_as_an_error_of_the_network(
    fleet: Fleet, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coco_kp.fleet.dask._CONNECT", 3)
    with _cluster(1) as other:
        fleet.address = str(other.scheduler_address)

        def close(request: Request) -> None:
            if request.method == "PUT" and "/manifests/" in request.path:
                registry.faults.clear()
                threading.Thread(target=other.close).start()

        registry.faults.append(close)
        assert set(fleet.run(code=6).outcomes) <= {"done", "failed"}


def test_scheduler_that_does_not_answer_is_an_error_of_the_network(
    fleet: Fleet, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coco_kp.fleet.dask._CONNECT", 1)
    outcome = command("fleet", "run", fleet.plan, "--dask", "tcp://127.0.0.1:1", ok=False)
    assert outcome.code == 6
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in outcome.err
