"""``coco-kp serve`` as operators see it: health, metrics, the audit log, and what systemd hears."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from coco_kp.cli.main import run
from tests.peers.daemon import Daemon, daemon
from tests.sim.kbs import simulated_kbs
from tests.support import ocicrypt
from tests.support.patience import PATIENCE, wait_until
from tests.support.provider import COCO_KP, LOG, served_address, serving
from tests.support.signals import heeding
from tests.support.traces import traces

SERVICE = "keyprovider.KeyProviderService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def scrape(running: Daemon) -> str:
    found = running.wait_until(
        lambda: re.search(r"http://127\.0\.0\.1:\d+/metrics", running.output()), "serve metrics"
    )
    with urllib.request.urlopen(found[0]) as response:  # noqa: S310 (what we have just matched)
        text: str = response.read().decode()
        return text


def health(channel: grpc.Channel, name: str) -> int:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return int(check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE).status)


@contextmanager
def connected(running: Daemon) -> Iterator[grpc.Channel]:
    with ocicrypt.connection(served_address(running)) as channel:
        yield channel


def lines(file: Path) -> list[str]:
    return [json.loads(line)["code"] for line in file.read_text().splitlines()]


def test_served_calls_are_counted_and_recorded_and_no_key_is_seen(tmp_path: Path) -> None:
    kek, audit = tmp_path / "kek", tmp_path / "audit"
    kek.write_bytes(os.urandom(32))
    kek.chmod(0o600)
    options = ocicrypt.new_private_options()
    flags = ("--metrics", "127.0.0.1:0", "--audit", str(audit), "--audit-required", "-v")
    with serving(tmp_path, *flags) as running, connected(running) as channel:
        ocicrypt.wrap(channel, f"keypath={kek}::keyid=/default/key/1", options)
        with pytest.raises(grpc.RpcError):
            ocicrypt.wrap(channel, "keypath=/absent::keyid=/default/key/1", options)
        text = scrape(running)
    log = running.output()
    assert 'coco_kp_calls_total{code="OK",operation="keywrap"} 1.0\n' in text
    assert 'coco_kp_calls_total{code="FAILED_PRECONDITION",operation="keywrap"} 1.0\n' in text
    assert 'coco_kp_requests_total{outcome="ok",to="file"} 1.0\n' in text
    assert "\ncoco_kp_calls_in_flight 0.0\n" in text
    assert lines(audit) == ["OK", "FAILED_PRECONDITION"]
    lek = b64decode(json.loads(options)["symkey"])
    for key in (kek.read_bytes(), lek):
        written = (text + log + audit.read_text()).encode()
        assert not [trace for trace in traces(key) if trace in written]


def test_audit_on_stdout_is_apart_from_the_log(tmp_path: Path) -> None:
    stdout = tmp_path / "stdout"
    command = ["sh", "-c", f'exec "$0" "$@" > {stdout}', str(COCO_KP), "serve"]
    flags = ["--socket", "127.0.0.1:0", "--audit", "-"]
    with daemon([*command, *flags], tmp_path / LOG) as running, connected(running) as channel:
        ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
    assert lines(stdout) == ["OK"]


def test_signal_has_the_audit_log_opened_anew(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    options = ocicrypt.new_private_options()
    with serving(tmp_path, "--audit", str(audit)) as running, connected(running) as channel:
        ocicrypt.wrap(channel, "sample=true", options)
        audit.rename(tmp_path / "audit.1")
        running.process.send_signal(signal.SIGHUP)
        wait_until(audit.exists)
        ocicrypt.wrap(channel, "sample=true", options)
        assert running.process.poll() is None
    assert (lines(audit), lines(tmp_path / "audit.1")) == (["OK"], ["OK"])


def test_signal_ends_a_server_that_has_nothing_to_open(tmp_path: Path) -> None:
    with heeding(signal.SIGHUP), serving(tmp_path) as running:
        running.process.send_signal(signal.SIGHUP)
        assert running.process.wait(PATIENCE) == -signal.SIGHUP


def test_second_health_name_follows_the_kbs_and_the_first_stays(tmp_path: Path) -> None:
    with simulated_kbs() as kbs:
        flags = ("--kbs", kbs.url, "--metrics", "127.0.0.1:0")
        with serving(tmp_path, *flags) as running, connected(running) as channel:
            wait_until(lambda: health(channel, f"{SERVICE}/ready") == SERVING)
            assert "\ncoco_kp_ready 1.0\n" in scrape(running)
            assert [health(channel, name) for name in ("", SERVICE)] == [SERVING] * 2
    with serving(tmp_path, "--kbs", kbs.url) as running, connected(running) as channel:
        running.wait_until(lambda: "not ready" in running.output(), "say that it is not ready")
        assert health(channel, f"{SERVICE}/ready") == NOT_SERVING
        assert [health(channel, name) for name in ("", SERVICE)] == [SERVING] * 2


def test_health_port_answers_for_its_health_alone(tmp_path: Path) -> None:
    with serving(tmp_path, "--health", "127.0.0.1:0") as running:
        found = running.wait_until(
            lambda: re.search(r'health address="(.*)"', running.output()),
            "name its health's address",
        )
        with (
            # Eight probes that sent nothing kept the kubelet's out.
            ocicrypt.half_open_calls(found[1], "/grpc.health.v1.Health/Check", 4, 100),
            ocicrypt.connection(found[1]) as channel,
        ):
            wait_until(lambda: health(channel, f"{SERVICE}/ready") == SERVING)
            assert health(channel, SERVICE) == SERVING
            with pytest.raises(grpc.RpcError) as error:
                ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
            running.process.terminate()
            assert running.process.wait(PATIENCE) == 0


def test_log_lines_that_nobody_reads_are_counted(tmp_path: Path) -> None:
    command = ["setpriv", "--pdeathsig", "KILL", str(COCO_KP), "serve", "--metrics", "127.0.0.1:0"]
    address = f"unix://{tmp_path}/kp.sock"
    with subprocess.Popen([*command, "--socket", address], stderr=subprocess.PIPE) as process:
        assert process.stderr
        metrics = ""
        for line in process.stderr:
            found = re.search(rb"http://\S+/metrics", line)
            metrics = found[0].decode() if found else metrics
            if b"ready on" in line:
                break
        counted = re.compile(r"^coco_kp_log_lines_dropped_total (\S+)$", re.MULTILINE)
        with ocicrypt.connection(address) as channel:
            dropped = 0.0
            while not dropped:  # 1000 lines wait, and some more are in the pipe
                for _ in range(500):
                    with pytest.raises(grpc.RpcError):
                        ocicrypt.send(channel, ocicrypt.WRAP_KEY, b"{}")
                with urllib.request.urlopen(metrics) as response:  # noqa: S310 (what it printed)
                    dropped = float(counted.findall(response.read().decode())[0])
        process.terminate()


def test_systemd_hears_of_start_reload_life_and_end(tmp_path: Path) -> None:
    heard: list[str] = []
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind(name)

        def hear(word: str) -> bool:
            while True:
                try:
                    heard.append(end.recv(4096).decode())
                except BlockingIOError:
                    return any(message.startswith(word) for message in heard)

        env = os.environ | {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"}
        command = [str(COCO_KP), "serve", "--socket", "127.0.0.1:0"]
        with daemon(command, tmp_path / LOG, env) as running:
            wait_until(lambda: hear("READY=1"))
            served_address(running)  # it was not said before that
            wait_until(lambda: hear("WATCHDOG=1"))
            heard.clear()
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: hear("RELOADING=1\nMONOTONIC_USEC="))
            wait_until(lambda: hear("READY=1"))
            running.process.terminate()
            wait_until(lambda: hear("STOPPING=1"))
            assert running.process.wait(PATIENCE) == 0


def test_half_a_certificate_is_refused_before_anything_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["serve", "--tls-cert", "absent", "--audit", "audit.jsonl"]) == 2
    assert list(tmp_path.iterdir()) == []
