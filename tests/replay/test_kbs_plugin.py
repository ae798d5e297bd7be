"""Our simulated KBS asks an external plugin what a real Trustee asked, and answers the guest so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trustme

from coco_kp.errors import RemoteError
from coco_kp.kbs.attester import Sample
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.rcar import Handshake
from coco_kp.kbs.session import Reader
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.resource_uri import parse_key_id
from tests.replay.recording import recording
from tests.sim.kbs import ADMIN_TOKEN, SimulatedKbs, simulated_kbs
from tests.sim.kbs_plugins import SERVICE, ExternalPlugin
from tests.sim.protobuf import write_field, write_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLUGIN: Final = recording("trustee-plugin")
KID: Final = parse_key_id(PLUGIN["kid"])
KEK: Final = bytes.fromhex(PLUGIN["kek_hex"])
ANSWERS: Final = {
    call["method"]: bytes.fromhex(call["response_hex"])
    for call in PLUGIN["calls"]
    if "response_hex" in call
}
ORDER: Final = ["ValidateAuth", "Handle", "NeedsEncryption"]


@dataclass
class Playback(grpc.GenericRpcHandler):
    """A plugin that gives the recorded answers, or others, and keeps what it was asked."""

    answers: dict[str, bytes] = field(default_factory=lambda: dict(ANSWERS))
    calls: list[tuple[str, str]] = field(default_factory=list)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        name = str(handler_call_details.method).removeprefix(SERVICE)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append((name, request.hex()))
            if name not in self.answers:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "none of your business")
            return self.answers[name]

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def serving(plugin: Playback, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Serve on loopback and give the address."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((plugin,))
    where = "127.0.0.1:0"
    port = (
        server.add_secure_port(where, credentials)
        if credentials
        else server.add_insecure_port(where)
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.fixture
def plugin() -> Playback:
    return Playback()


@pytest.fixture
def sim(plugin: Playback) -> Iterator[SimulatedKbs]:
    with serving(plugin) as address, simulated_kbs() as running:
        running.with_external("coco-kp", f"http://{address}")
        yield running


@pytest.fixture
def kbs(sim: SimulatedKbs) -> Iterator[Kbs]:
    with Kbs(KbsUrl.parse(sim.url)) as connected:
        yield connected


@pytest.fixture
def guest(kbs: Kbs) -> Reader:
    return Reader(kbs, Handshake(kbs, Sample()))


def refusal_of(kbs: Kbs, method: str, path: str, body: bytes | None, bearer: str) -> str:
    """Ask as nobody or an administrator does and return the name of the refusal; empty for none."""
    refused = kbs.call(method, path, bearer=bearer, body=body).refusal
    return refused.variant if refused else ""


def log(sim: SimulatedKbs) -> list[str]:
    """Return what the KBS's log has of its external plugin."""
    external = sim.plugins["external"]
    assert isinstance(external, ExternalPlugin)
    return external.log


def test_simulated_kbs_asks_plugin_what_the_real_one_asked(guest: Reader, plugin: Playback) -> None:
    assert guest.fetch(KID) == KEK
    recorded = {(call["method"], call["request_hex"]) for call in PLUGIN["calls"]}
    assert set(plugin.calls) == recorded
    assert [name for name, _ in plugin.calls] == ORDER


def test_guest_whom_policy_denies_reaches_no_handler(
    sim: SimulatedKbs, guest: Reader, plugin: Playback
) -> None:
    sim.denied.add("external/coco-kp/prod")
    with pytest.raises(RemoteError, match="policy"):
        guest.fetch(KID)
    assert {name for name, _ in plugin.calls} == {"ValidateAuth"}


@pytest.mark.parametrize("status", [199, 403, 500])
def test_refusal_of_plugin_stays_in_log_of_kbs(
    sim: SimulatedKbs, guest: Reader, plugin: Playback, status: int
) -> None:
    plugin.answers["Handle"] = write_field(1, b"no such name") + write_number(2, status)
    with pytest.raises(RemoteError) as error:
        guest.fetch(KID)
    assert "no such name" not in str(error.value)
    assert set(log(sim)) == {f"plugin 'coco-kp' returned HTTP status {status}: no such name"}
    assert "NeedsEncryption" not in [name for name, _ in plugin.calls]


def test_grpc_error_of_plugin_loses_its_text(
    sim: SimulatedKbs, guest: Reader, plugin: Playback
) -> None:
    del plugin.answers["Handle"]
    with pytest.raises(RemoteError):
        guest.fetch(KID)
    assert set(log(sim)) == {"gRPC error from plugin: PERMISSION_DENIED"}


def test_unknown_backend_is_refused_before_anybody_is_attested(
    sim: SimulatedKbs, guest: Reader, plugin: Playback
) -> None:
    with pytest.raises(RemoteError):
        guest.fetch(parse_key_id("kbs+external:///other/prod?ct=AA"))
    assert set(log(sim)) == {"external plugin 'other' not registered"}
    assert plugin.calls == []


def test_call_that_wants_an_administrator_is_refused_to_guest(
    guest: Reader, plugin: Playback
) -> None:
    plugin.answers["ValidateAuth"] = write_number(1, 1)
    with pytest.raises(RemoteError):
        guest.fetch(KID)
    assert {name for name, _ in plugin.calls} == {"ValidateAuth"}


def test_kbs_reaches_plugin_over_tls_with_its_ca(plugin: Playback, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(plugin, credentials) as address, simulated_kbs() as sim:
        sim.with_external("coco-kp", f"https://{address}", tmp_path / "ca.pem")
        with Kbs(KbsUrl.parse(sim.url)) as kbs:
            assert Reader(kbs, Handshake(kbs, Sample())).fetch(KID) == KEK


class TestPkcs11:
    """Trustee's plugin ``pkcs11``, as far as it keeps KEKs (no recording; from its source)."""

    @pytest.fixture
    def sim(self) -> Iterator[SimulatedKbs]:
        with simulated_kbs() as running:
            running.with_pkcs11()
            yield running

    def test_second_post_replaces_nothing_and_delete_takes_one(
        self, kbs: Kbs, guest: Reader
    ) -> None:
        path, uri = "pkcs11/resource/a/b/c", parse_key_id("kbs+pkcs11:///resource/a/b/c")
        for value in (b"1" * 32, b"2" * 32):
            assert refusal_of(kbs, "POST", path, value, ADMIN_TOKEN) == ""
        assert guest.fetch(uri) == b"1" * 32
        assert refusal_of(kbs, "DELETE", path, None, ADMIN_TOKEN) == ""
        assert guest.fetch(uri) == b"2" * 32
        assert refusal_of(kbs, "DELETE", path, None, ADMIN_TOKEN) == ""
        assert refusal_of(kbs, "DELETE", path, None, ADMIN_TOKEN) == "PluginInternalError"
        with pytest.raises(RemoteError):
            guest.fetch(uri)

    @pytest.mark.parametrize("path", ["a/b/c", "resource/a/b", "resource/a/b/.c", "wrap-key"])
    def test_other_path_is_refused(self, kbs: Kbs, path: str) -> None:
        found = refusal_of(kbs, "POST", f"pkcs11/{path}", b"k", ADMIN_TOKEN)
        assert found == "PluginInternalError"

    def test_writing_wants_an_administrator(self, kbs: Kbs) -> None:
        found = refusal_of(kbs, "POST", "pkcs11/resource/a/b/c", b"k", "")
        assert found == "AdminAuthInitialization"


@pytest.mark.parametrize("name", ["pkcs11", "external"])
def test_plugin_that_kbs_was_built_without_is_not_found(name: str) -> None:
    with simulated_kbs() as sim, Kbs(KbsUrl.parse(sim.url)) as kbs:
        found = refusal_of(kbs, "GET", f"{name}/resource/a/b/c", None, "")
    assert found == "PluginNotFound"
