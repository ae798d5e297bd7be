"""Our provider, given what upstream's was asked to wrap, wraps it so that the same key opens it."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from coco_kp.errors import CocoKpError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.admin_token import SigningKey
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.record import Record
from coco_kp.keys.register import Registrar
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.provider import Provider
from tests.replay.key_provider import call
from tests.replay.recording import Recorded, recording
from tests.sim.kbs import simulated_kbs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RECORDED: Final = recording("coco_keyprovider")
CALLS: Final = {recorded["name"]: recorded for recorded in RECORDED["calls"]}
REGISTRATIONS: Final = [name for name in CALLS if name.startswith("registration")]
WRAPS: Final = [
    name
    for name, recorded in CALLS.items()
    if recorded["method"] == "WrapKey" and name not in REGISTRATIONS
]
FOLDER: Final = "/mnt"
REGISTERED: Final = "the key that was registered"
KEKS: Final = {
    "kek": b64decode(RECORDED["key_files"]["/mnt/kek"]),
    "sample": b64decode(RECORDED["sample_kek"]),
}
"""By the word for what opens upstream's packet."""

LOST: Final = "refused: nobody would keep the key"
UNREADABLE: Final = "refused: no guest can read the key ID"
CONTRADICTION: Final = "refused: the parameters contradict each other"
UNKNOWN: Final = "refused: a parameter or its value is unknown"
ONE_PACKET: Final = "refused: the answer has room for one packet"
FORMS: Final = "wrapped: all forms of a request that any client writes are read"
DIFFERENCES: Final = {
    "sample with keyid and keypath": CONTRADICTION,
    "sample and algorithm A256CTR": CONTRADICTION,
    "sample=True": UNKNOWN,
    "unknown parameter": UNKNOWN,
    "misspelt keypath": UNKNOWN,
    "capitals": UNKNOWN,
    "algorithm nonsense": UNKNOWN,
    "keyid twice": CONTRADICTION,
    "sample=false alone": LOST,
    "keyid alone": LOST,
    "empty parameters": LOST,
    "Enabled": LOST,
    "keyid 'kbs:///default/key'": UNREADABLE,
    "keyid 'kbs:///default/key/1/2'": UNREADABLE,
    "keyid 'http://a/b'": UNREADABLE,
    "keyid 'kbs:/default/key/1'": UNREADABLE,
    "keyid 'kbs:default/key/1'": UNREADABLE,
    "keyid 'kbs:///kbs:///default/key/1'": UNREADABLE,
    "keyid 'kbs:///a b/c/d'": UNREADABLE,
    "no keyid": UNREADABLE,
    "word without =": UNREADABLE,
    ":: at the end": UNREADABLE,
    "two recipients": ONE_PACKET,
    "two recipients, the second is bad": ONE_PACKET,
    "two recipients, the first is no base64": ONE_PACKET,
    "optsdata empty": "refused: there is no key to wrap",
    "op keyunwrap": "refused: op contradicts the method",
    "keyid 'kbs://[::1]:8080/default/key/1'": "wrapped: an IPv6 address may be in a key ID",
    "another provider's name": FORMS,
    "DecryptConfig null": FORMS,
    "DecryptConfig missing": FORMS,
    "DecryptConfig.Parameters null": FORMS,
    "optsdata as JSON text": FORMS,
    "op missing": FORMS,
    "keyunwrapparams missing": FORMS,
    "registration, KBS that lets everybody write: random key": LOST,
    "registration, KBS that lets everybody write: kid with another host": (
        "refused: the key would not be where the packet says"
    ),
    "registration, KBS that lets everybody write: kid of two parts": UNREADABLE,
    **{
        f"registration, KBS that wants a token with a role: {what}": (
            "refused: the KBS did not take the key"
        )
        for what in ("key of a file", "random key", "random key, no keyid", "kid without a scheme")
    },
    "registration, KBS that wants a token with a role: kid with another host": (
        "refused: the key would not be where the packet says"
    ),
    "registration, KBS that wants a token with a role: kid of two parts": UNREADABLE,
}
"""What only one of upstream's and ours does, on purpose: what we do, and why."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The key files of the recording."""
    for path, key in RECORDED["key_files"].items():
        file = tmp_path / path.removeprefix(f"{FOLDER}/")
        file.write_bytes(b64decode(key))
        file.chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("name", WRAPS)
def test_provider_given_what_upstreams_was_asked_wraps_under_the_same_key(
    name: str, folder: Path
) -> None:
    packet = wrap(CALLS[name], Provider(), folder)
    if packet:
        check_packet(packet, CALLS[name], KEKS)


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_provider_that_registers_given_what_upstreams_was_asked_wraps_only_what_the_kbs_took(
    name: str, folder: Path
) -> None:
    recorded = CALLS[name]
    signing_key = folder / "signing-key"
    signing_key.write_text(RECORDED["registration_key_pem"])
    signing_key.chmod(0o600)
    with simulated_kbs() as sim, Kbs(KbsUrl.parse(sim.url)) as kbs:
        sim.admins = "anybody" if "lets everybody write" in name else "by token"
        admin = Admin(kbs, SigningKey.read(signing_key, role="admin"))
        registrar = Registrar(admin, Record(folder / "record"))
        packet = wrap(recorded, Provider(registrar=registrar, register_callers_files=True), folder)
    keks = dict(KEKS)
    if packet is None or not recorded["kbs_exchanges"]:
        assert sim.resources == {}
    else:
        ((path, key),) = sim.resources.items()
        assert packet["kid"] == f"kbs:///{path}"
        if recorded["answer"]["opens_with"] == "kek":
            assert key == KEKS["kek"]
        keks[REGISTERED] = key
    if packet:
        check_packet(packet, recorded, keks)


def test_provider_given_what_upstreams_was_asked_to_unwrap_opens_it() -> None:
    opened = json.loads(call(Provider(), CALLS["UnWrapKey"]))
    assert opened.keys() == {"symkey", "digest", "cipheroptions"}


def wrap(recorded: Recorded, provider: Provider, folder: Path) -> Recorded | None:
    """Have private options wrapped, or not, where upstream did; return the packet."""
    reason = DIFFERENCES.get(recorded["name"], "")
    upstream_wrapped = recorded["answer"]["code"] == "OK"
    packet: Recorded | None = None
    try:
        data = call(provider, recorded, lambda text: text.replace(FOLDER, str(folder)))
    except CocoKpError as refused:
        text = refused.message
    else:
        text = "wrapped"
        packet = json.loads(data)
    if reason:
        assert (packet is None) == upstream_wrapped, "as upstream now: take it from DIFFERENCES"
        assert reason.startswith("refused: " if upstream_wrapped else "wrapped: ")
    else:
        assert (packet is not None) == upstream_wrapped, text
    return packet


def check_packet(packet: Recorded, recorded: Recorded, keks: Mapping[str, bytes]) -> None:
    """Open a packet with the key that opens upstream's, and compare the key IDs."""
    opener = recorded["answer"].get("opens_with", "kek")
    assert unwrapped(packet, keks[opener]).decode() == recorded["private_options"]
    if "packet" in recorded["answer"]:
        upstreams_packet = json.loads(recorded["answer"]["packet"])
        if opener != REGISTERED:  # which upstream drew itself
            options = unwrapped(upstreams_packet, keks[opener]).decode()
            assert options == recorded["private_options"]
        kid, upstreams = packet["kid"], upstreams_packet["kid"]
        if "no keyid" in recorded["name"]:  # each makes one up
            kid, upstreams = kid.rpartition("/")[0], upstreams.rpartition("/")[0]
        # Upstream writes a key ID as it is given, ours with its scheme.
        assert kid.partition("://")[2] == upstreams.rpartition("://")[2]


def unwrapped(packet: Recorded, kek: bytes) -> bytes:
    """Open a packet with none of our own code (docs/protocols.md 3)."""
    iv, wrapped = b64decode(packet["iv"]), b64decode(packet["wrapped_data"])
    if packet["wrap_type"] == "A256CTR":
        return Cipher(AES256(kek), CTR(iv)).decryptor().update(wrapped)
    assert packet["wrap_type"] == "A256GCM"
    return AESGCM(kek).decrypt(iv, wrapped, None)
