from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coco_kp.crypto import SAMPLE_KEK
from coco_kp.errors import (
    CocoKpError,
    InputError,
    KekError,
    KeyPathForbiddenError,
)
from coco_kp.kbc.kbcs import Kbcs
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.reference import AwsKmsReference
from coco_kp.keys.resolve import FetchedKek, NewKek, StayingKey
from coco_kp.keys.wrapper import CTR_WARNING, SAMPLE_WARNING
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.layer_options import MAX_DOCUMENT
from coco_kp.model.protocol import UnwrapRequest, WrapRequest
from coco_kp.provider import MAX_KBCS, KeyFileError, KeyUse, Provider
from tests.support.kbcs import kbcs_with
from tests.vectors import load_vectors

VECTORS = load_vectors("packets")
GCM = next(vector for vector in VECTORS["good"] if vector["name"] == "gcm")
PRIVATE_OPTIONS = GCM["optsdata"].encode()
PACKET = GCM["packet"].encode()
KEK = bytes.fromhex(GCM["kek"])
KID = "kbs:///default/key/key_id1"


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.write_bytes(KEK)
    path.chmod(0o600)
    return path


def keys_file(folder: Path, kek: bytes = KEK) -> Kbcs:
    """A provider's keys file with this KEK under the vectors' kid."""
    path = folder / "keys.json"
    path.write_text(json.dumps({"default/key/key_id1": b64encode(kek).decode()}))
    return kbcs_with(path)


def decrypted(packet: dict[str, str], kek: bytes) -> bytes:
    """What the packet holds, without any of our own code."""
    iv, wrapped = b64decode(packet["iv"]), b64decode(packet["wrapped_data"])
    if packet["wrap_type"] == "A256GCM":
        return AESGCM(kek).decrypt(iv, wrapped, None)
    decryptor = Cipher(algorithms.AES(kek), modes.CTR(iv)).decryptor()
    return decryptor.update(wrapped) + decryptor.finalize()


@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
@pytest.mark.parametrize("key_id", [KID, "/default/key/key_id1"])
def test_provider_wraps_with_key_file(kek: Path, algorithm: str, key_id: str) -> None:
    parameters = f"keypath={kek}::keyid={key_id}::algorithm={algorithm}"
    wrapped = Provider().wrap(WrapRequest((parameters,), PRIVATE_OPTIONS))
    packet = json.loads(wrapped.packet)
    assert list(packet) == ["kid", "wrapped_data", "iv", "wrap_type"]
    assert packet["kid"] == str(wrapped.kid) == KID
    assert packet["wrap_type"] == algorithm
    assert decrypted(packet, KEK) == PRIVATE_OPTIONS
    assert wrapped.warnings == ((CTR_WARNING,) if algorithm == "A256CTR" else ())


def test_provider_wraps_with_sample_key() -> None:
    wrapped = Provider().wrap(WrapRequest(("sample=true",), PRIVATE_OPTIONS))
    packet = json.loads(wrapped.packet)
    assert packet["kid"] == "kbs:///default/test-key/1"
    assert packet["wrap_type"] == "A256GCM"
    assert decrypted(packet, SAMPLE_KEK) == PRIVATE_OPTIONS
    assert wrapped.warnings == (SAMPLE_WARNING,)


def test_provider_draws_new_iv_for_each_wrap() -> None:
    request = WrapRequest(("sample=true",), PRIVATE_OPTIONS)
    ivs = {json.loads(Provider().wrap(request).packet)["iv"] for _ in range(100)}
    assert len(ivs) == 100


def test_provider_writes_v2_packet_when_configured(kek: Path) -> None:
    request = WrapRequest((f"keypath={kek}::keyid={KID}",), PRIVATE_OPTIONS)
    packet = json.loads(Provider(packet_version="v2").wrap(request).packet)
    expected = json.loads(next(v["packet"] for v in VECTORS["good"] if v["name"] == "v2_kbs"))
    assert list(packet) == list(expected)
    assert packet["provider"] == "kbs"
    assert decrypted(packet, KEK) == PRIVATE_OPTIONS


def test_provider_warns_about_key_file_that_others_may_read(kek: Path) -> None:
    kek.chmod(0o644)
    request = WrapRequest((f"keypath={kek}::keyid={KID}",), PRIVATE_OPTIONS)
    assert Provider().wrap(request).warnings == (
        f"others may read the key file '{kek}': chmod 600 it",
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((), "the request has no parameters"),
        (("sample=true", "sample=true"), "names 2 recipients of this provider"),
        (("",), "the encryption parameters are empty"),
        (("Enabled",), "the encryption parameters are empty"),
        (("sample=true::algorithm=A256CTR",), "makes an image that no guest can open"),
        ((f"keyid={KID}",), "keypath is missing: without it the key would be lost"),
        (("sample=false",), "keypath is missing: without it the key would be lost"),
    ],
)
def test_provider_refuses_parameters_without_usable_recipient(
    parameters: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        Provider().wrap(WrapRequest(parameters, PRIVATE_OPTIONS))
    assert error.value.hint


@pytest.mark.parametrize("text", load_vectors("params")["reject"])
def test_provider_refuses_known_bad_parameters(text: str) -> None:
    with pytest.raises(InputError) as error:
        Provider().wrap(WrapRequest((text,), PRIVATE_OPTIONS))
    assert error.value.hint


@pytest.mark.parametrize("removed", ["symkey", "digest", "cipheroptions"])
def test_provider_refuses_private_options_that_no_guest_could_use(removed: str) -> None:
    document = {k: v for k, v in json.loads(PRIVATE_OPTIONS).items() if k != removed}
    with pytest.raises(InputError, match=f"has no '{removed}'"):
        Provider().wrap(WrapRequest(("sample=true",), json.dumps(document).encode()))


def test_provider_wraps_private_options_byte_for_byte_up_to_size_limit() -> None:
    spaced = json.dumps(json.loads(PRIVATE_OPTIONS) | {"later": "ä"}, indent=3).encode()
    for document in (spaced, spaced + b" " * (MAX_DOCUMENT - len(spaced))):
        wrapped = Provider().wrap(WrapRequest(("sample=true",), document))
        assert decrypted(json.loads(wrapped.packet), SAMPLE_KEK) == document
        opened = Provider().unwrap(UnwrapRequest(("sample",), wrapped.packet))
        assert opened.private_options == document
    with pytest.raises(InputError, match="more than the 65536 allowed"):
        Provider().wrap(WrapRequest(("sample=true",), document + b" "))


def test_provider_refuses_keypath_outside_key_dir(kek: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    provider = Provider(key_dir=tmp_path / "allowed")
    with pytest.raises(KeyPathForbiddenError):
        provider.wrap(WrapRequest((f"keypath={kek}::keyid={KID}",), PRIVATE_OPTIONS))
    kek.rename(tmp_path / "allowed" / "kek")
    provider.wrap(WrapRequest((f"keypath=kek::keyid={KID}",), PRIVATE_OPTIONS))
    provider.wrap(WrapRequest(("sample=true",), PRIVATE_OPTIONS))  # which reads no file


@pytest.mark.parametrize("content", [None, b"", bytes(31), b"\n" * 33, b"A" * 5000, "folder"])
def test_provider_whose_callers_may_be_elsewhere_has_one_text_for_all_files(
    kek: Path, content: bytes | str | None
) -> None:
    """The texts told a guest which files there are, how long they are and what is in them."""
    path = kek.with_name("asked-for")
    match content:
        case "folder":
            path.mkdir()
        case bytes():
            path.write_bytes(content)
    request = WrapRequest((f"keypath={path}::keyid={KID}",), PRIVATE_OPTIONS)
    with pytest.raises(KeyFileError) as error:
        Provider(files_untold=True).wrap(request)
    assert error.value.message == f"the key file '{path}' cannot be used"
    assert error.value.hint.startswith("the provider reads the key file itself")
    with pytest.raises(KekError) as told:
        Provider().wrap(request)
    assert told.value.message in error.value.why
    assert told.value.message not in str(error.value)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS["good"] if vector["name"] != "sample_zero_iv"],
    ids=lambda vector: vector["name"],
)
def test_provider_opens_known_packets(tmp_path: Path, vector: dict[str, Any]) -> None:
    provider = Provider(kbcs=keys_file(tmp_path, bytes.fromhex(vector["kek"])))
    request = UnwrapRequest(("offline_fs_kbc::null",), vector["packet"].encode())
    opened = provider.unwrap(request)
    assert opened.private_options == vector["optsdata"].encode()
    assert str(opened.kid) == KID
    assert str(opened.kbc) == "offline_fs_kbc::null"
    assert vector["optsdata"] not in repr(opened)


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["name"])
def test_provider_refuses_known_bad_packets(tmp_path: Path, vector: dict[str, Any]) -> None:
    provider = Provider(kbcs=keys_file(tmp_path, bytes.fromhex(vector["kek"])))
    with pytest.raises(CocoKpError) as error:
        provider.unwrap(UnwrapRequest(("offline_fs",), vector["packet"].encode()))
    assert error.value.exit_code == vector["exit_code"]


@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
def test_provider_detects_wrong_key_even_with_ctr(
    kek: Path, tmp_path: Path, algorithm: str
) -> None:
    parameters = f"keypath={kek}::keyid={KID}::algorithm={algorithm}"
    packet = Provider().wrap(WrapRequest((parameters,), PRIVATE_OPTIONS)).packet
    provider = Provider(kbcs=keys_file(tmp_path, bytes(32)))
    with pytest.raises(KekError, match=f"^the key of {KID} does not open the packet"):
        provider.unwrap(UnwrapRequest(("offline_fs",), packet))


def test_provider_prefers_kbc_of_request_to_its_own(tmp_path: Path) -> None:
    kbcs = keys_file(tmp_path)
    own = Provider(kbc=KbcSpec("offline_fs", ""), kbcs=kbcs)
    for parameters in ((), ("Enabled",), ("offline_fs_kbc::null",)):
        assert own.unwrap(UnwrapRequest(parameters, PACKET)).private_options == PRIVATE_OPTIONS
    with pytest.raises(KekError, match="does not open"):
        own.unwrap(UnwrapRequest(("sample",), PACKET))


@pytest.mark.parametrize("parameters", [(), ("Enabled",)])
def test_provider_without_kbc_hints_how_to_name_one(parameters: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="names no KBC") as error:
        Provider().unwrap(UnwrapRequest(parameters, PACKET))
    assert error.value.code == "kbc-unnamed"
    assert "offline_fs_kbc::null" in error.value.hint


def test_provider_tries_several_kbcs_in_order(tmp_path: Path) -> None:
    provider = Provider(kbcs=keys_file(tmp_path))
    opened = provider.unwrap(UnwrapRequest(("sample", "offline_fs"), PACKET))
    assert opened.kbc.name == "offline_fs"
    with pytest.raises(KekError) as error:
        Provider(kbcs=keys_file(tmp_path, bytes(32))).unwrap(
            UnwrapRequest(("sample", "offline_fs::\x1b[2J\n"), PACKET)
        )
    assert "'sample_kbc::null': the key of" in error.value.message
    assert "'offline_fs_kbc::?[2J?': the key of" in error.value.message


def test_provider_refuses_unknown_kbc_before_trying_any(tmp_path: Path) -> None:
    provider = Provider(kbcs=keys_file(tmp_path))
    with pytest.raises(InputError, match="KBC 'x' is unknown"):
        provider.unwrap(UnwrapRequest(("offline_fs", "x"), PACKET))


def test_provider_limits_number_of_kbcs() -> None:
    with pytest.raises(KekError, match="no KBC opened the packet"):
        Provider().unwrap(UnwrapRequest(("sample",) * MAX_KBCS, PACKET))
    with pytest.raises(InputError, match="more than 8 KBCs"):
        Provider().unwrap(UnwrapRequest(("sample",) * (MAX_KBCS + 1), PACKET))


def test_provider_refuses_packet_without_valid_private_options(kek: Path, tmp_path: Path) -> None:
    iv = bytes(12)
    wrapped = AESGCM(kek.read_bytes()).encrypt(iv, b'{"symkey":"AA=="}', None)
    packet = json.dumps(
        {
            "kid": KID,
            "wrapped_data": b64encode(wrapped).decode(),
            "iv": b64encode(iv).decode(),
            "wrap_type": "A256GCM",
        }
    )
    with pytest.raises(KekError):
        Provider(kbcs=keys_file(tmp_path)).unwrap(UnwrapRequest(("offline_fs",), packet.encode()))


class ForbiddenError(CocoKpError):
    """What forbids a use in these tests."""


def forbidden(use: KeyUse) -> None:
    raise ForbiddenError(f"{use.operation} {use.kid} {use.algorithm} {use.key}")


@pytest.mark.parametrize(
    ("parameters", "use"),
    [
        ("sample=true", "keywrap None A256GCM sample"),
        (
            "keypath=/absent::keyid=/default/key/1::algorithm=A256CTR",
            "keywrap kbs:///default/key/1 A256CTR file:/absent",
        ),
    ],
)
def test_provider_asks_whether_a_wrap_is_permitted_before_it_touches_the_key(
    parameters: str, use: str
) -> None:
    with pytest.raises(ForbiddenError) as error:
        Provider().wrap(WrapRequest((parameters,), PRIVATE_OPTIONS), forbidden)
    assert error.value.message == use


def test_provider_asks_whether_an_unwrap_is_permitted_before_it_asks_a_kbc(tmp_path: Path) -> None:
    kbcs = kbcs_with(tmp_path / "absent")
    request = UnwrapRequest(("sample", "offline_fs::null"), PACKET)
    with pytest.raises(ForbiddenError) as error:
        Provider(kbcs=kbcs).unwrap(request, forbidden)
    assert error.value.message == (
        f"keyunwrap {KID} A256GCM sample_kbc::null, offline_fs_kbc::null"
    )


def test_provider_names_layer_and_key_of_what_it_wrapped_and_unwrapped(kek: Path) -> None:
    wrapped = Provider().wrap(
        WrapRequest((f"keypath={kek}::keyid=/default/key/1",), PRIVATE_OPTIONS),
    )
    assert wrapped.layer == json.loads(PRIVATE_OPTIONS)["digest"]
    assert wrapped.kek
    assert wrapped.kek.raw() == KEK
    sample = Provider().wrap(WrapRequest(("sample=true",), PRIVATE_OPTIONS)).packet
    assert Provider().unwrap(UnwrapRequest(("sample",), sample)).layer == wrapped.layer


def asked(provider: Provider, parameters: str) -> tuple[str, str]:
    """Return what grants are asked for."""
    uses: list[KeyUse] = []

    def note(use: KeyUse) -> None:
        uses.append(use)
        raise ForbiddenError("enough")

    with pytest.raises(ForbiddenError):
        provider.wrap(WrapRequest((parameters,), PRIVATE_OPTIONS), note)
    (scope,) = uses[0].scopes
    return scope, uses[0].kek_from


KMS = StayingKey(AwsKmsReference("", "alias/prod"))


@pytest.mark.parametrize(
    ("provider", "parameters", "scope", "kek_from"),
    [
        (Provider(), "sample=true", "kbs:///default/test-key/1", ""),
        (Provider(), "keypath=/a/b::keyid=/a/b/c", "kbs:///a/b/c", "file:/a/b"),
        (Provider(), "keypath=b::keyid=/a/b/c", "kbs:///a/b/c", f"file:{Path.cwd()}/b"),
        (Provider(Path("/keys")), "keypath=a/b::keyid=/a/b/c", "kbs:///a/b/c", "file:/keys/a/b"),
        (Provider(Path("/keys")), "keypath=/x::keyid=/a/b/c", "kbs:///a/b/c", "file:/x"),
        # what would lead elsewhere stays for no pattern to match
        (
            Provider(Path("/keys")),
            "keypath=a/../b::keyid=/a/b/c",
            "kbs:///a/b/c",
            "file:/keys/a/../b",
        ),
        (
            Provider(allow_kek=("vault:*",)),
            "kekfrom=vault:///kv/a?kv=2::keyid=/a/b/c",
            "kbs:///a/b/c",
            "vault:///kv/a",
        ),
        # the provider's own keys are not the caller's to name
        (Provider(source=NewKek()), "Enabled", "kbs:///default/image-kek/new", ""),
        (Provider(source=NewKek()), "keyid=/a/b/c", "kbs:///a/b/c", ""),
        (Provider(source=FetchedKek(FileReference("/own"))), "keyid=/a/b/c", "kbs:///a/b/c", ""),
        (Provider(source=FetchedKek(FileReference("/own"))), "Enabled", "", ""),
        (Provider(source=KMS), "Enabled", "awskms:///alias/prod", ""),
        (
            Provider(source=KMS),
            "keyid=kbs+external:///coco-kp/prod?ct=AAAA",
            "kbs+external:///coco-kp/prod",
            "",
        ),
    ],
)
def test_provider_asks_for_key_id_and_for_the_key_that_the_caller_names(
    provider: Provider, parameters: str, scope: str, kek_from: str
) -> None:
    assert asked(provider, parameters) == (scope, kek_from)


def test_provider_asks_for_the_key_id_of_a_packet_without_its_wrapped_kek() -> None:
    packet = json.loads(PACKET) | {"kid": "kbs+external:///coco-kp/prod?ct=AAAA"}
    scopes: list[str] = []
    with pytest.raises(CocoKpError):
        Provider().unwrap(
            UnwrapRequest(("cc",), json.dumps(packet).encode()),
            lambda use: scopes.extend(use.scopes),
        )
    assert scopes == ["kbs+external:///coco-kp/prod"]
