"""``coco-kp kbs-plugin`` as a process, with a real HSM behind it."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme

from coco_kp.errors import RemoteError
from coco_kp.kbc.cc import cc_kbc
from coco_kp.keys.external import ciphertext_of, wrap_new_kek
from coco_kp.keys.reference import parse_wrapping_reference
from coco_kp.keys.stores.opening import open_wrapping_key
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.packet import AnnotationPacket, parse_packet
from coco_kp.model.resource_uri import parse_key_id
from tests.peers.softhsm import MASTER, PIN, SoftHsm
from tests.sim.kbs import simulated_kbs
from tests.support.kbs_plugin import ask, plugin_address, plugin_process
from tests.support.patience import PATIENCE
from tests.support.traces import traces
from tests.support.wrapping import SECRET

pytestmark = pytest.mark.peer

PROD = parse_key_id("kbs+external:///coco-kp/prod")


@pytest.fixture
def config(softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin's file: the names ``prod`` and ``test``, with one key of an HSM."""
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", PIN)
    file = tmp_path / "plugin.toml"
    uri = softhsm.uri(MASTER)
    file.write_text("".join(f'[names.{n}]\nunwrap-with = "{uri}"\n' for n in ("prod", "test")))
    return file


def test_plugin_process_unwraps_with_an_hsm(softhsm: SoftHsm, config: Path, tmp_path: Path) -> None:
    key = open_wrapping_key(parse_wrapping_reference(softhsm.uri(MASTER)))
    kid, kek = wrap_new_kek(PROD, key)
    with (
        plugin_process(tmp_path, "--config", str(config), "--log-format", "json") as running,
        grpc.insecure_channel(plugin_address(running)) as channel,
    ):
        with ThreadPoolExecutor(40) as layers:
            answers = list(
                layers.map(lambda _: ask(channel, "prod", ciphertext_of(kid)), range(40))
            )
        other = ask(channel, "test", ciphertext_of(kid))
    log = running.output()
    assert {answer.body for answer in answers} == {kek.raw()}
    assert (other.status_code, other.body) == (404, b"")
    assert not [trace for trace in (*traces(kek.raw()), PIN.encode()) if trace in log.encode()]
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["event"] for event in events] == ["ready", *["answered"] * 40, "refused"]


def test_plugin_process_in_trouble_with_its_hsm_lives_and_says_so(
    softhsm: SoftHsm, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = open_wrapping_key(parse_wrapping_reference(softhsm.uri(MASTER)))
    kid, kek = wrap_new_kek(PROD, key)
    pin = tmp_path / "pin"
    pin.write_text("654321")
    config.write_text(config.read_text().replace("?", f"?pin-source={pin}&"))
    monkeypatch.delenv("COCO_KP_PKCS11_PIN")
    with (
        plugin_process(tmp_path, "--config", str(config)) as running,
        grpc.insecure_channel(plugin_address(running)) as channel,
    ):
        for _ in range(3):
            answer = ask(channel, "prod", ciphertext_of(kid))
            assert (answer.status_code, answer.body) == (503, b"")
        pin.write_text(PIN)
        assert ask(channel, "prod", ciphertext_of(kid)).body == kek.raw()
    log = running.output()
    assert log.count("refused the PIN") == 3
    assert "654321" not in log


def test_guest_opens_packet_whose_kek_an_hsm_wrapped(
    softhsm: SoftHsm, config: Path, tmp_path: Path
) -> None:
    """Key ID, KBS, plugin, HSM, and back; the KBS keeps nothing."""
    key = open_wrapping_key(parse_wrapping_reference(softhsm.uri(MASTER)))
    kid, kek = wrap_new_kek(PROD, key)
    iv, wrapped = kek.wrap(Algorithm.A256GCM, SECRET)
    packet = AnnotationPacket(kid, wrapped, iv, Algorithm.A256GCM)
    other = packet._replace(kid=replace(kid, segments=("coco-kp", "test")))
    with (
        plugin_process(tmp_path, "--config", str(config)) as running,
        simulated_kbs() as kbs,
        closing(cc_kbc(str(kbs.url))) as guest,
    ):
        external = kbs.with_external("coco-kp", f"http://{plugin_address(running)}")
        assert guest.unwrap(parse_packet(packet.to_json("v1"))) == SECRET
        with pytest.raises(RemoteError):
            guest.unwrap(parse_packet(other.to_json("v1")))
        assert kbs.resources == {}
        external.close()
    assert set(external.log) == {"plugin 'coco-kp' returned HTTP status 404: "}


def test_plugin_process_speaks_tls(config: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with plugin_process(tmp_path, "--config", str(config), *tls) as running:
        address = plugin_address(running)
        with grpc.secure_channel(address, trusted) as channel:
            assert ask(channel, "prod", bytes(60)).status_code == 404
        with grpc.insecure_channel(address) as plain, pytest.raises(grpc.RpcError):
            ask(plain, "prod", bytes(60))


def test_plugin_process_ends_on_a_signal_and_leaves_no_socket(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "kbs.sock"
    listen = f"unix://{path}"
    with plugin_process(tmp_path, "--config", str(config), listen=listen) as running:
        with grpc.insecure_channel(listen) as channel:
            assert ask(channel, "none", bytes(60)).status_code == 404
        assert path.stat().st_mode & 0o777 == 0o600
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE) == 0
    assert not path.exists()
