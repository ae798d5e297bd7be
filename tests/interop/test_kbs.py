"""A real Trustee KBS: keys go in and come out, by us and by its own client, and it may say no."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError, RemoteError
from coco_kp.kbs import admin_token
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.admin_token import SigningKey
from coco_kp.kbs.attester import Sample
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.rcar import Handshake
from coco_kp.kbs.record import Record
from coco_kp.kbs.session import Reader, Session
from coco_kp.kbs.tee_key import KINDS
from coco_kp.keys.register import Registrar
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.resource_uri import parse_key_id
from tests.peers.daemon import daemon
from tests.peers.folder import folder_peer
from tests.peers.kbs import RunningKbs, kbs
from tests.peers.skopeo import SkopeoError
from tests.support.deletion import delete_resource
from tests.support.image import Image
from tests.support.key import KEY_ID
from tests.support.provider import COCO_KP, LOG, Provider, grpc_config, our_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.support.key import Key

pytestmark = [pytest.mark.peer, pytest.mark.folder_peer]

KID = parse_key_id("kbs:///default/key/1")
PATH = "default/key/1"


@pytest.fixture(params=["http", "tls"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningKbs]:
    """A KBS that wants admin tokens with a role; over plain HTTP, and over TLS with an own CA."""
    with kbs(tmp_path, request.param) as running:
        yield running


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[RunningKbs]:
    """The same, over plain HTTP alone: for what TLS cannot change."""
    with kbs(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the record of registered keys in the test's folder, not in the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COCO_KP_ADMIN_TOKEN", raising=False)


def connect(broker: RunningKbs) -> Kbs:
    return Kbs(KbsUrl.parse(broker.url), ca_file=broker.ca if broker.ca.exists() else None)


def admin(broker: RunningKbs, token: Path | None = None) -> Admin:
    return Admin(connect(broker), admin_token.find(token_file=token or broker.admin_token))


def reader(broker: RunningKbs, kind: str = "P-256") -> Reader:
    connected = connect(broker)
    return Reader(connected, Handshake(connected, Sample(), kind))


def test_kbs_client_reads_resource_registered_by_admin(broker: RunningKbs) -> None:
    key = os.urandom(32)
    admin(broker).put(KID, key)
    broker.allow_all()
    done = broker.client("get-resource", "--path", PATH)
    assert base64.b64decode(done.stdout) == key


def test_reader_fetches_resource_registered_by_kbs_client(broker: RunningKbs, key: Key) -> None:
    broker.configure("set-resource", "--path", PATH, "--resource-file", key.path)
    broker.allow_all()
    for kind in KINDS:
        assert reader(broker, kind).fetch(KID) == key.raw


def test_deleted_resource_can_be_neither_read_nor_deleted(plain: RunningKbs) -> None:
    plain.allow_all()
    admin(plain).put(KID, b"key")
    delete_resource(admin(plain), KID)
    with pytest.raises(RemoteError, match="PluginInternalError 401"):
        reader(plain).fetch(KID)
    with pytest.raises(RemoteError, match="refused to delete"):
        delete_resource(admin(plain), KID)


def test_reader_keeps_session_until_kbs_refuses_its_token(plain: RunningKbs) -> None:
    plain.allow_all()
    admin(plain).put(KID, b"key")
    reading = reader(plain)
    assert reading.fetch(KID) == b"key"
    first = reading._session
    assert first is not None
    assert reading.fetch(KID) == b"key"
    assert reading._session is first

    forged = Session(first.token[:-8] + "AAAAAAAA", first.tee_key)
    reading._session = forged
    assert reading.fetch(KID) == b"key"
    assert reading._session is not forged


# What it refuses.


@pytest.mark.parametrize("token", ["reader-token", "expired-token", None])
def test_admin_without_sufficient_token_is_refused(plain: RunningKbs, token: str | None) -> None:
    writer = admin(plain, plain.folder / token) if token else Admin(connect(plain), None)
    with pytest.raises(CocoKpError) as refused:
        writer.put(KID, b"key")
    expected = {
        "reader-token": "Role reader not allowed for path /kbs/v0/resource/default/key/1",
        "expired-token": "expired on",
        None: "no admin token was sent",
    }
    assert expected[token] in str(refused.value)
    with pytest.raises(CocoKpError):
        writer.list_policies()


def test_kbs_refuses_expired_token_when_our_clock_is_wrong(
    plain: RunningKbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock may be wrong."""
    monkeypatch.setattr("time.time", lambda: 0.0)
    with pytest.raises(RemoteError, match=r"\(AdminAuthInitialization 401\)") as refused:
        admin(plain, plain.folder / "expired-token").put(KID, b"key")
    assert "not expired" in refused.value.hint


def test_reader_distinguishes_denied_from_missing_resource(plain: RunningKbs) -> None:
    admin(plain).put(KID, b"key")
    with pytest.raises(RemoteError, match=r"PolicyDeny 40[13]"):
        reader(plain).fetch(KID)  # the policy that it comes with refuses the sample attester
    plain.allow_all()
    assert reader(plain).fetch(KID) == b"key"
    with pytest.raises(RemoteError, match="there is no such resource"):
        reader(plain).fetch(parse_key_id("kbs:///default/key/2"))
    plain.deny_all()
    with pytest.raises(RemoteError, match=r"PolicyDeny 40[13]"):
        reader(plain).fetch(KID)


def test_kbs_refuses_oversized_resource_with_413(plain: RunningKbs) -> None:
    with pytest.raises(RemoteError, match="HTTP 413") as refused:
        admin(plain).put(KID, bytes(3_000_000))
    assert "payload_request_size" in refused.value.hint


def test_kbs_refuses_unknown_plugin_with_404(plain: RunningKbs) -> None:
    with pytest.raises(RemoteError, match="PluginNotFound 404"):
        reader(plain).fetch(parse_key_id("kbs+nope:///a/b/c"))


def test_admin_refuses_kbs_certificate_of_unknown_ca(tmp_path: Path) -> None:
    with (
        kbs(tmp_path, "tls") as broker,
        Kbs(KbsUrl.parse(broker.url)) as connected,
        pytest.raises(RemoteError, match="certificate is not trusted"),
    ):
        Admin(connected, None).put(KID, b"key")


def test_kbs_that_accepts_every_writer_needs_no_token(tmp_path: Path) -> None:
    with kbs(tmp_path, "open") as broker:
        Admin(connect(broker), None).put(KID, b"key")
        broker.allow_all()
        assert reader(broker).fetch(KID) == b"key"


# Tokens that we sign.


def test_kbs_accepts_token_signed_with_its_ed25519_key(plain: RunningKbs) -> None:
    signer = SigningKey.read(
        plain.admin_key, role="kbs-admin", issuer="peer-admin", audience="kbs-admin"
    )
    Admin(connect(plain), signer).put(KID, b"key")


@pytest.mark.parametrize(
    ("role", "issuer", "audience", "said"),
    [
        ("admin", "peer-admin", "kbs-admin", "Role admin not allowed for path"),
        ("kbs-admin", "somebody", "kbs-admin", "Cannot verify token with any of the issuers"),
        ("kbs-admin", "peer-admin", "another", "Cannot verify token with any of the issuers"),
    ],
)
def test_kbs_refuses_token_signed_with_wrong_claims(
    plain: RunningKbs, role: str, issuer: str, audience: str, said: str
) -> None:
    signer = SigningKey.read(plain.admin_key, role=role, issuer=issuer, audience=audience)
    with pytest.raises(RemoteError, match=said):
        Admin(connect(plain), signer).put(KID, b"key")


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "RSA"],
)
def test_kbs_accepts_token_signed_with_ec_or_rsa_key(
    tmp_path: Path, private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    folder = tmp_path / "kbs"
    folder.mkdir()
    file = folder / "admin.key"  # a key that is there is taken
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "admin.pub").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    signer = SigningKey.read(file, role="kbs-admin", issuer="peer-admin", audience="kbs-admin")
    with kbs(tmp_path) as broker:
        Admin(connect(broker), signer).put(KID, b"key")


# Registration.


def test_registrar_returns_only_registered_keks_when_kbs_is_killed(
    plain: RunningKbs, tmp_path: Path
) -> None:
    """Whoever got a KEK finds it in the KBS after all; whoever did not got an error."""
    registrar = Registrar(admin(plain), Record(tmp_path / "registered"))
    given: dict[str, bytes] = {}
    failures: list[CocoKpError] = []
    enough = threading.Event()

    def register(worker: int) -> None:
        for number in range(10_000):
            kid = parse_key_id(f"kbs:///default/key/{worker}-{number}")
            try:
                kek = Kek.generate()
                registrar.register(kid, kek)
                given[kid.path] = kek.raw()
            except CocoKpError as failure:
                failures.append(failure)
                return
            if len(given) >= 20:
                enough.set()

    threads = [threading.Thread(target=register, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    plain.kill()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    assert len(failures) == 4

    with kbs(tmp_path) as again:
        again.allow_all()
        reading = reader(again)
        for path, raw in given.items():
            assert reading.fetch(parse_key_id(f"kbs:///{path}")) == raw


# The whole way, through skopeo.


@contextmanager
def provider_in(folder: Path, skopeo: Skopeo, *flags: str) -> Iterator[Provider]:
    """Run our provider in a folder of its own: beside, or after, another."""
    folder.mkdir()
    with our_provider(skopeo, folder, *flags) as provider:
        yield provider


def kept_in(folder: Path) -> list[str]:
    """Return the option that has a provider keep its keys in a new folder."""
    folder.mkdir()
    return ["--key-dir", str(folder)]


def kbs_flags(broker: RunningKbs) -> list[str]:
    ca = ["--kbs-ca", str(broker.ca)] if broker.ca.exists() else []
    return ["--kbs", broker.url, *ca, "--admin-token-file", str(broker.admin_token)]


@pytest.mark.parametrize("parameters", ["keyid=kbs:///team/key/app::algorithm=A256CTR", ""])
def test_skopeo_encrypts_and_decrypts_with_keys_from_kbs_only(
    broker: RunningKbs, skopeo: Skopeo, image: Image, tmp_path: Path, parameters: str
) -> None:
    broker.allow_all()
    given = parameters or "algorithm=A256GCM"
    flags = [*kbs_flags(broker), *kept_in(tmp_path / "keys")]
    with our_provider(skopeo, tmp_path, *flags) as provider:
        encrypted = provider.encrypt(image, given)
        kids = {layer.packet["kid"] for layer in encrypted.layers}
        if parameters:
            assert kids == {"kbs:///team/key/app"}
        else:
            assert len(kids) == 3
            assert all(kid.startswith("kbs:///default/image-kek/") for kid in kids)
    ca = ["--kbs-ca", str(broker.ca)] if broker.ca.exists() else []
    with provider_in(tmp_path / "guest", skopeo, *ca) as guest:
        decrypted = guest.decrypt(encrypted, f"cc_kbc::{broker.url}")
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config


def test_provider_registers_key_file_with_kbs(
    plain: RunningKbs, skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    plain.allow_all()
    flags = [*kbs_flags(plain), "--register-callers-files"]
    with our_provider(skopeo, tmp_path, *flags) as provider:
        encrypted = provider.encrypt(image, key.parameters())
        assert provider.decrypt(encrypted, f"cc_kbc::{plain.url}").layers == image.layers


def test_provider_with_key_dir_reuses_key_after_restart(
    plain: RunningKbs, skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    plain.allow_all()
    key_dir = tmp_path / "keys"
    key_dir.mkdir()
    flags = [*kbs_flags(plain), "--key-dir", str(key_dir)]
    images = []
    for name in ("first", "second"):
        with provider_in(tmp_path / name, skopeo, *flags) as provider:
            images.append(provider.encrypt(image, "keyid=kbs:///team/key/app"))
    with provider_in(tmp_path / "guest", skopeo) as guest:
        for encrypted in images:
            assert guest.decrypt(encrypted, f"cc_kbc::{plain.url}").layers == image.layers


def test_provider_refuses_to_replace_key_that_images_need(
    plain: RunningKbs, skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    plain.allow_all()
    with our_provider(skopeo, tmp_path, *kbs_flags(plain), *kept_in(tmp_path / "k1")) as provider:
        encrypted = provider.encrypt(image, "keyid=kbs:///team/key/app")
    flags = [*kbs_flags(plain), *kept_in(tmp_path / "k2")]
    with provider_in(tmp_path / "second", skopeo, *flags) as provider:
        with pytest.raises(SkopeoError, match="was registered before"):
            provider.encrypt(image, "keyid=kbs:///team/key/app")
        assert provider.decrypt(encrypted, f"cc_kbc::{plain.url}").layers == image.layers


@pytest.mark.parametrize("token", ["reader-token", None])
def test_skopeo_makes_no_image_when_kbs_refuses_registration(
    plain: RunningKbs, skopeo: Skopeo, image: Image, tmp_path: Path, token: str | None
) -> None:
    """Upstream makes the image all the same (docs/protocols.md 6.3, 3)."""
    flags = ["--admin-token-file", str(plain.folder / token)] if token else []
    flags += kept_in(tmp_path / "keys")
    with (
        our_provider(skopeo, tmp_path, "--kbs", plain.url, *flags) as provider,
        pytest.raises(SkopeoError) as error,
    ):
        provider.encrypt(image, "keyid=kbs:///team/key/app")
    assert "refused to register 'kbs:///team/key/app' (AdminAuthInitialization 401)" in str(
        error.value
    )


def test_skopeo_makes_no_image_when_kbs_is_unreachable(
    plain: RunningKbs, skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    with our_provider(skopeo, tmp_path, *kbs_flags(plain), *kept_in(tmp_path / "keys")) as provider:
        plain.kill()
        with pytest.raises(SkopeoError, match="connection refused"):
            provider.encrypt(image, "keyid=kbs:///team/key/app")


def test_provider_debug_log_shows_neither_key_nor_token(
    plain: RunningKbs, skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    plain.allow_all()
    flags = [*kbs_flags(plain), *kept_in(tmp_path / "keys")]
    with our_provider(skopeo, tmp_path, "-vv", *flags) as provider:
        encrypted = provider.encrypt(image, "keyid=kbs:///team/key/app")
        provider.decrypt(encrypted, f"cc_kbc::{plain.url}")
        with pytest.raises(SkopeoError) as refused:
            provider.encrypt(image, "keyid=kbs://elsewhere/team/key/app")
    kek = reader(plain).fetch(parse_key_id("kbs:///team/key/app"))
    shown = (tmp_path / LOG).read_text() + str(refused.value)
    assert "kbs:///team/key/app" in shown
    for secret in (kek.hex(), base64.b64encode(kek).decode(), plain.admin_token.read_text()):
        assert secret.strip() not in shown
        assert secret[:20] not in shown


def test_coco_kp_opens_image_that_upstream_registered_with_open_kbs(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    """Its admin token has no role, and its random key is another for each layer."""
    with kbs(tmp_path, "open") as broker:
        broker.allow_all()
        upstream: list[str | Path] = [folder_peer("coco_keyprovider"), "--socket", "127.0.0.1:0"]
        upstream += ["--kbs", broker.url, "-a", broker.admin_key]
        with daemon(upstream, tmp_path / "upstream.log") as running:
            config = grpc_config(tmp_path / "upstream.json", running.address())
            encrypted = Provider(skopeo, config, tmp_path).encrypt(image, "keyid=kbs:///a/b/c")
        with our_provider(skopeo, tmp_path) as guest, pytest.raises(SkopeoError):
            guest.decrypt(encrypted, f"cc_kbc::{broker.url}")


def test_keys_register_stores_key_file_in_kbs(plain: RunningKbs, key: Key) -> None:
    done = coco_kp("keys", "register", key.path, "kbs:///team/key/app", *kbs_flags(plain))
    assert done.returncode == 0, done.stderr
    assert "registered kbs:///team/key/app with" in done.stderr
    plain.allow_all()
    assert reader(plain).fetch(parse_key_id("kbs:///team/key/app")) == key.raw


def test_keys_register_stores_key_of_keys_file_in_kbs(plain: RunningKbs, key: Key) -> None:
    done = coco_kp("keys", "register", key.keys_file, KEY_ID, *kbs_flags(plain))
    assert done.returncode == 0, done.stderr
    plain.allow_all()
    assert reader(plain).fetch(parse_key_id(f"kbs:///{KEY_ID}")) == key.raw


def test_keys_register_replaces_key_only_with_force(
    plain: RunningKbs, key: Key, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(os.urandom(32))
    command = ["keys", "register", "kbs:///team/key/app", *kbs_flags(plain)]
    assert coco_kp(*command[:2], key.path, *command[2:]).returncode == 0
    done = coco_kp(*command[:2], other, *command[2:])
    assert done.returncode == 7
    assert "for another key" in done.stderr
    assert coco_kp(*command[:2], other, *command[2:], "--force").returncode == 0
    plain.allow_all()
    assert reader(plain).fetch(parse_key_id("kbs:///team/key/app")) == other.read_bytes()


def test_keys_register_fails_when_kbs_refuses(plain: RunningKbs, key: Key) -> None:
    token = plain.folder / "reader-token"
    flags = ["--kbs", plain.url, "--admin-token-file", str(token)]
    done = coco_kp("keys", "register", key.path, "kbs:///team/key/app", *flags)
    assert done.returncode == 6
    assert "Role reader not allowed" in done.stderr


def test_doctor_examines_kbs(broker: RunningKbs) -> None:
    done = coco_kp("doctor", "--format", "json", *kbs_flags(broker))
    found = {check["check"]: (check["ok"], check["found"]) for check in json.loads(done.stdout)}
    assert found["KBS"] == (True, f"{broker.url} answers")
    assert found["KBS protocol"] == (True, "version 0.4.0 on both sides")
    assert found["KBS clock"] == (True, "within 60 s of this machine's")
    assert found["KBS admin token"] == (True, f"that of '{broker.admin_token}' is accepted")


def test_doctor_reports_admin_token_refused_by_kbs(plain: RunningKbs) -> None:
    token = plain.folder / "reader-token"
    flags = ["--kbs", plain.url, "--admin-token-file", str(token)]
    done = coco_kp("doctor", "--format", "json", *flags)
    (failed,) = [
        check
        for check in json.loads(done.stdout)
        if check["check"].startswith("KBS") and not check["ok"]
    ]
    assert failed["check"] == "KBS admin token"
    assert "Role reader not allowed" in failed["found"]
    assert "check the admin token" in failed["hint"]
    assert done.returncode != 0


def test_encrypt_and_decrypt_use_key_from_kbs_only(
    broker: RunningKbs, image: Image, tmp_path: Path
) -> None:
    broker.allow_all()
    encrypted, decrypted = Image(tmp_path / "encrypted"), Image(tmp_path / "decrypted")
    kid = ["--register"]
    done = coco_kp("encrypt", image.reference, encrypted.reference, *kid, *kbs_flags(broker))
    assert done.returncode == 0, done.stderr
    assert all(layer.encrypted for layer in encrypted.layers)
    ca = ["--kbs-ca", str(broker.ca)] if broker.ca.exists() else []
    kbc = ["--kbc", f"cc::{broker.url}", *ca]
    assert coco_kp("verify", encrypted.reference, *kbc).returncode == 0
    done = coco_kp("decrypt", encrypted.reference, decrypted.reference, *kbc)
    assert done.returncode == 0, done.stderr
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config


def test_encrypt_makes_no_image_when_kbs_refuses_registration(
    plain: RunningKbs, image: Image, tmp_path: Path
) -> None:
    target = Image(tmp_path / "encrypted")
    flags = ["--kbs", plain.url, "--admin-token-file", str(plain.folder / "reader-token")]
    kid = ["--register"]
    done = coco_kp("encrypt", image.reference, target.reference, *kid, *flags)
    assert done.returncode == 6
    assert "Role reader not allowed" in done.stderr
    assert not target.folder.exists()


def coco_kp(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COCO_KP, *arguments], capture_output=True, text=True, check=False)
