"""``grpc-tls`` in ocicrypt's configuration: who reads it, and what the others do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coco_kp.keyprovider.service import key_provider
from coco_kp.provider import Provider
from coco_kp.service.calls import answer
from coco_kp.skopeo import Program
from tests.peers.builder import BUILDERS, Builder
from tests.peers.debian import TRIXIE
from tests.peers.golang import CIMAGE_CLIENT
from tests.peers.skopeo import SkopeoError, with_each_client
from tests.support import grpc_server
from tests.support.pki import Pki
from tests.support.provider import COCO_KP, our_config, served_address, serving

if TYPE_CHECKING:
    import grpc

    from tests.peers.skopeo import Skopeo
    from tests.support.image import Image

pytestmark = pytest.mark.peer

SAMPLE = "sample=true"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@contextmanager
def tls_provider(credentials: grpc.ServerCredentials) -> Iterator[str]:
    """Run a provider that speaks TLS, and give its address."""
    service = key_provider(partial(answer, Provider()))
    with grpc_server.serving(service, credentials=credentials) as address:
        yield address


def config(folder: Path, address: str, pki: Pki, *more: str) -> Path:
    """Write a configuration with ``grpc-tls`` as a user does."""
    path = folder / "ocicrypt.json"
    return our_config(path, "--force", "--grpc", address, "--tls-root-ca", str(pki.ca), *more)


def knows(program: Path) -> bool:
    """Return what ``doctor`` says of a program's file."""
    known = Program(program, "", True).knows_grpc_tls()
    assert known is not None
    return known


@with_each_client
def test_client_sends_keys_in_clear_unless_it_is_known_to_read_grpc_tls(
    skopeo: Skopeo, image: Image, tmp_path: Path, pki: Pki
) -> None:
    """What answers speaks no TLS: whoever encrypts has sent it the layers' keys."""
    with serving(tmp_path) as server:
        configured = config(tmp_path, served_address(server), pki)
        encrypt = partial(
            skopeo.encrypt, image.reference, f"oci:{tmp_path}/encrypted", SAMPLE, configured
        )
        assert knows(skopeo.program) is (skopeo.program.name == CIMAGE_CLIENT.name)
        if knows(skopeo.program):
            with pytest.raises(SkopeoError, match="first record does not look like a TLS"):
                encrypt()
        else:
            encrypt()


@pytest.mark.parametrize("name", BUILDERS)
def test_builder_sends_keys_in_clear_as_doctor_says(
    name: str, image: Image, tmp_path: Path, pki: Pki
) -> None:
    builder = Builder(name, tmp_path / "builder")
    assert not knows(TRIXIE.have() / "bin" / name)
    with serving(tmp_path) as server:
        configured = config(tmp_path, served_address(server), pki)
        pulled = builder.pull(image.reference)
        builder.push(pulled, f"oci:{tmp_path}/encrypted:x", configured, SAMPLE)


@pytest.mark.parametrize("skopeo", [CIMAGE_CLIENT.name], indirect=True)
def test_newest_client_encrypts_over_mutual_tls_with_configuration_of_ours(
    skopeo: Skopeo, image: Image, tmp_path: Path, pki: Pki
) -> None:
    certificate, key = pki.issue("client.example.org")
    shown = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with tls_provider(pki.server("kp.example.org", clients=pki)) as address:
        name = ("--tls-server-name", "kp.example.org")
        target = f"oci:{tmp_path}/encrypted"
        skopeo.encrypt(
            image.reference, target, SAMPLE, config(tmp_path, address, pki, *shown, *name)
        )
        for wrong in (shown, name):  # no name that is in its certificate; no certificate of ours
            with pytest.raises(SkopeoError, match="Unavailable"):
                skopeo.encrypt(
                    image.reference, target, SAMPLE, config(tmp_path, address, pki, *wrong)
                )


def test_encrypt_through_provider_and_doctor_speak_mutual_tls(
    image: Image, tmp_path: Path, pki: Pki, skopeo_program: Path
) -> None:
    certificate, key = pki.issue("client.example.org")
    shown = ("--tls-cert", str(certificate), "--tls-key", str(key))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "skopeo").symlink_to(skopeo_program)

    def run(configured: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}/bin:/usr/bin:/bin"
        environment = os.environ | {"OCICRYPT_KEYPROVIDER_CONFIG": str(configured), "PATH": path}
        command = [str(COCO_KP), *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    encrypt = ("encrypt", image.reference, f"oci:{tmp_path}/encrypted")
    provider = ("--provider", f"attestation-agent:{SAMPLE}", "--trust-provider")
    with tls_provider(pki.server("127.0.0.1", clients=pki)) as address:
        without = config(tmp_path, address, pki)
        refused = run(without, *encrypt, *provider)
        assert (refused.returncode, "answered UNAVAILABLE" in refused.stderr) == (6, True)
        assert not (tmp_path / "encrypted").exists()

        distrusted = run(config(tmp_path, address, Pki(tmp_path / "other")), *encrypt, *provider)
        assert "CERTIFICATE_VERIFY_FAILED" in distrusted.stderr
        assert len(distrusted.stderr.splitlines()) == 1  # gRPC's own lines are no part of it

        configured = config(tmp_path, address, pki, *shown)
        done = run(configured, *encrypt, *provider)
        assert done.returncode == 0, done.stderr

        diagnosis = run(configured, "doctor", "--format", "json")
    checks = {check["check"]: check for check in json.loads(diagnosis.stdout)}
    assert checks["provider"]["found"] == f"{address} SERVING"
    assert "does not know grpc-tls" in checks["TLS of skopeo"]["found"]
    assert not checks["TLS of skopeo"]["ok"]
    assert diagnosis.returncode == 6
