"""Images whose keys stay in a KMS or HSM: the whole way, in each form, to what a guest does."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from coco_kp.keys.external import unwrap
from coco_kp.keys.reference import parse_wrapping_reference
from coco_kp.keys.stores.opening import open_wrapping_key
from coco_kp.model.resource_uri import parse_resource_uri
from tests.peers.aws import ALIAS, REGION, RunningAws
from tests.peers.skopeo import PROVIDER, SkopeoError
from tests.peers.softhsm import PIN
from tests.sim.kbs import SimulatedKbs, simulated_kbs
from tests.support import kbs_plugin, provider
from tests.support.command import KID
from tests.support.image import PACKETS, Image, Layer
from tests.support.kbs_plugin import plugin_address, plugin_process
from tests.support.provider import Provider, our_config, our_provider
from tests.support.traces import traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from types_boto3_kms.client import KMSClient

    from tests.peers.skopeo import Skopeo
    from tests.peers.softhsm import SoftHsm
    from tests.support.command import Command
    from tests.support.key import Key

pytestmark = pytest.mark.peer

EXTERNAL: Final = "kbs+external:///coco-kp/prod"


@pytest.fixture
def shared(hsm: SoftHsm, key: Key) -> str:
    """The URI of a key that an HSM does not hand out; guests have the same one."""
    hsm.add_aes("shared", key.raw)
    return hsm.uri("shared")


@contextmanager
def attesting_kbs(folder: Path, uri: str) -> Iterator[SimulatedKbs]:
    """Run a KBS with the plugin, which unwraps with a key for the names ``prod`` and ``test``."""
    config = folder / "plugin.toml"
    config.write_text("".join(f'[names.{n}]\nunwrap-with = "{uri}"\n' for n in ("prod", "test")))
    with plugin_process(folder, "--config", str(config)) as running, simulated_kbs() as kbs:
        kbs.with_external("coco-kp", f"http://{plugin_address(running)}")
        yield kbs


# The packet of a KMS.


def private_options(client: KMSClient, layer: Layer) -> bytes:
    """Have KMS decrypt a layer's packet, as a guest's Confidential Data Hub does."""
    packet = json.loads(b64decode(layer.annotations[PACKETS]))
    assert (packet["provider"], packet["provider_settings"]) == ("aws", {"region": REGION})
    ciphertext = b64decode(packet["wrapped_data"])
    return client.decrypt(CiphertextBlob=ciphertext, KeyId=packet["kid"])["Plaintext"]


def test_image_goes_the_whole_way_with_a_key_of_kms(
    kms: RunningAws, image: Image, tmp_path: Path, command: Command
) -> None:
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    own = ("--wrap-with", f"awskms:///{ALIAS}")
    command("encrypt", image.reference, encrypted.reference, *own)
    command("verify", encrypted.reference, *own)
    command("decrypt", encrypted.reference, decrypted.reference, *own)
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config
    with closing(kms.kms()) as client:
        keys = {json.loads(private_options(client, x))["symkey"] for x in encrypted.layers}
    assert len(keys) == 3


def test_rewrap_between_keys_of_kms_keeps_what_packets_hold(
    kms: RunningAws, image: Image, tmp_path: Path, command: Command
) -> None:
    with closing(kms.kms()) as client:
        other = client.create_key()["KeyMetadata"]["KeyId"]
        encrypted = Image(tmp_path / "e")
        old, new = (("--wrap-with", f"awskms:///{name}") for name in (ALIAS, other))
        command("encrypt", image.reference, encrypted.reference, *old)
        before = [private_options(client, layer) for layer in encrypted.layers]
        command("rewrap", encrypted.reference, *old, "--to-wrap-with", f"awskms:///{other}")
        assert {layer.packet["kid"] for layer in encrypted.layers} == {other}
        assert [private_options(client, layer) for layer in encrypted.layers] == before
    # AWS and local-kms call it another key; moto denies access to it.
    assert command("verify", encrypted.reference, *old, ok=False).code in {4, 6}
    decrypted = Image(tmp_path / "d")
    command("decrypt", encrypted.reference, decrypted.reference, *new)
    assert decrypted.layers == image.layers


def test_rewrap_moves_an_image_into_kms_and_out(
    kms: RunningAws, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    file, staying = ("--keypath", key.path), ("--wrap-with", f"awskms:///{kms.key}")
    command("encrypt", image.reference, encrypted.reference, "--keyid", KID, *file)
    context = f"awskms:///{kms.key}?context=app=demo"
    command("rewrap", encrypted.reference, *file, "--to-wrap-with", context)
    assert command("verify", encrypted.reference, *file, ok=False).code == 4
    command("verify", encrypted.reference, *staying)
    to = ("--to-keyid", KID, "--to-keypath", key.path)
    command("rewrap", encrypted.reference, *staying, *to)
    command("decrypt", encrypted.reference, decrypted.reference, *file)
    assert decrypted.layers == image.layers


# The same key in an HSM and a KBS.


def test_image_wrapped_in_an_hsm_opens_with_the_same_key_elsewhere(
    shared: str, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    encrypted = Image(tmp_path / "e")
    own = ("--wrap-with", shared)
    command("encrypt", image.reference, encrypted.reference, *own, "--keyid", KID)
    command("verify", encrypted.reference, *own, "--target", "coco", "--expect-keyid", KID)
    with simulated_kbs() as kbs:
        kbs.resources["default/key/1"] = key.raw
        guest = ("--kbc", f"cc::{kbs.url}")
        for number, opening in enumerate((own, ("--keypath", key.path), guest)):
            decrypted = Image(tmp_path / f"d{number}")
            command("decrypt", encrypted.reference, decrypted.reference, *opening)
            assert decrypted.layers == image.layers


def test_hsm_opens_what_others_wrapped_with_the_same_key(
    shared: str, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    file = ("--keypath", key.path)
    command("encrypt", image.reference, encrypted.reference, "--keyid", KID, *file)
    command("decrypt", encrypted.reference, decrypted.reference, "--wrap-with", shared)
    assert decrypted.layers == image.layers


# The wrapped KEK.


def test_image_opens_through_kbs_and_plugin_where_its_master_key_stays(
    staying: str, image: Image, tmp_path: Path, command: Command
) -> None:
    """From ``encrypt`` to the guest, with nothing in the KBS."""
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    own = ("--wrap-with", staying)
    command("encrypt", image.reference, encrypted.reference, *own, "--keyid", EXTERNAL)
    command("verify", encrypted.reference, *own, "--target", "coco", "--expect-keyid", EXTERNAL)
    command("decrypt", encrypted.reference, f"oci:{tmp_path}/own", *own)
    with attesting_kbs(tmp_path, staying) as kbs:
        guest = ("--kbc", f"cc::{kbs.url}")
        command("decrypt", encrypted.reference, decrypted.reference, *guest)
        assert decrypted.layers == image.layers
        assert decrypted.config == image.config
        assert kbs.resources == {}
        # A guest that the policy does not let in
        kbs.denied.add("external/coco-kp/prod")
        never = f"oci:{tmp_path}/never"
        outcome = command("decrypt", encrypted.reference, never, *guest, ok=False)
        assert outcome.code == 6
        assert not (tmp_path / "never").exists()
    (kid,) = {layer.packet["kid"] for layer in encrypted.layers}
    key = open_wrapping_key(parse_wrapping_reference(staying))
    kek = unwrap(parse_resource_uri(kid), key).raw()
    log = (tmp_path / kbs_plugin.LOG).read_bytes()
    assert not [trace for trace in traces(kek) if trace in log]


def test_rewrap_gives_an_image_a_wrapped_kek(
    staying: str, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    file = ("--keypath", key.path)
    command("encrypt", image.reference, encrypted.reference, "--keyid", KID, *file)
    add = ("--add", f"keyid={EXTERNAL},wrap-with={staying}")
    command("rewrap", encrypted.reference, *file, *add)
    command("rewrap", encrypted.reference, "--wrap-with", staying, "--remove", KID)
    assert command("verify", encrypted.reference, *file, ok=False).code == 4
    with attesting_kbs(tmp_path, staying) as kbs:
        command("decrypt", encrypted.reference, decrypted.reference, "--kbc", f"cc::{kbs.url}")
    assert decrypted.layers == image.layers


def test_rebuilt_image_takes_layers_over_whose_kek_was_wrapped_before(
    staying: str, image: Image, tmp_path: Path, command: Command
) -> None:
    first, second = Image(tmp_path / "first"), Image(tmp_path / "second")
    decrypted = Image(tmp_path / "d")
    own = ("--wrap-with", staying, "--keyid", EXTERNAL)
    command("encrypt", image.reference, first.reference, *own)
    outcome = command(
        "encrypt", image.reference, second.reference, *own, "--reuse", first.reference
    )
    assert "0 encrypted, 3 reused" in outcome.out
    assert [layer.blob for layer in second.layers] == [layer.blob for layer in first.layers]
    with attesting_kbs(tmp_path, staying) as kbs:
        command("decrypt", second.reference, decrypted.reference, "--kbc", f"cc::{kbs.url}")
    assert decrypted.layers == image.layers


# The provider.


@pytest.mark.parametrize("door", ["grpc", "cmd"])
def test_skopeo_encrypts_with_a_key_that_stays_in_an_hsm(
    hsm: SoftHsm,
    image: Image,
    key: Key,
    skopeo: Skopeo,
    tmp_path: Path,
    command: Command,
    door: str,
) -> None:
    hsm.add_aes("shared", key.raw)
    if door == "grpc":
        with our_provider(skopeo, tmp_path, "--wrap-with", hsm.uri("shared")) as running:
            encrypted = running.encrypt(image, f"keyid={KID}")
        log = (tmp_path / provider.LOG).read_bytes()
        assert not [trace for trace in (*traces(key.raw), PIN.encode()) if trace in log]
    else:
        # skopeo's environment, which the provider gets, has no more than a home.
        config, pin = skopeo.home / ".config" / "softhsm2", tmp_path / "pin"
        config.mkdir(parents=True)
        shutil.copy(hsm.folder / "softhsm2.conf", config)
        pin.write_text(PIN)
        flags = ("--wrap-with", hsm.uri("shared", **{"pin-source": f"file:{pin}"}))
        ours = our_config(tmp_path / "ocicrypt.json", "--cmd", "--", *flags)
        encrypted = Provider(skopeo, ours, tmp_path).encrypt(image, f"keyid={KID}")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"default/key/1": b64encode(key.raw).decode()}))
    keys.chmod(0o600)
    command("verify", encrypted.reference, "--keypath", key.path, "--expect-keyid", KID)
    (tmp_path / "guest").mkdir()
    with our_provider(skopeo, tmp_path / "guest", "--keys", str(keys)) as guest:
        assert guest.decrypt(encrypted, "offline_fs_kbc::null").layers == image.layers


@pytest.mark.parametrize("parameters", ["", ":", f":keyid={EXTERNAL}"])
def test_skopeo_encrypts_with_a_key_of_kms(
    local_kms: RunningAws,
    image: Image,
    skopeo: Skopeo,
    tmp_path: Path,
    command: Command,
    parameters: str,
) -> None:
    """Without a key ID the packets are for KMS itself, whose key has its own name."""
    uri = f"awskms:///{local_kms.key}"
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    with our_provider(skopeo, tmp_path, "--wrap-with", uri) as running:
        skopeo.copy(
            *(image.reference, encrypted.reference),
            *("--encryption-key", f"{PROVIDER}{parameters}"),
            config=running.config,
        )
    command("decrypt", encrypted.reference, decrypted.reference, "--wrap-with", uri)
    assert decrypted.layers == image.layers
    kids = {layer.packet["kid"] for layer in encrypted.layers}
    if "keyid" in parameters:
        assert all(kid.startswith(f"{EXTERNAL}?ct=") for kid in kids)
    else:
        assert kids == {local_kms.key}
        with closing(local_kms.kms()) as client:
            assert all(private_options(client, layer) for layer in encrypted.layers)
    log = (tmp_path / provider.LOG).read_text()
    assert ("KMS_PROVIDER=aws" in log) is ("keyid" not in parameters)


def test_skopeo_encrypts_and_decrypts_with_a_wrapped_kek(
    staying: str, image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    with our_provider(skopeo, tmp_path, "--wrap-with", staying) as running:
        encrypted = running.encrypt(image, f"keyid={EXTERNAL}")
    kids = {layer.packet["kid"] for layer in encrypted.layers}
    assert len(kids) == 3, "a call wraps for one layer, and no key is kept between two"
    (tmp_path / "guest").mkdir()
    with (
        attesting_kbs(tmp_path, staying) as kbs,
        our_provider(skopeo, tmp_path / "guest") as guest,
    ):
        assert guest.decrypt(encrypted, f"cc_kbc::{kbs.url}").layers == image.layers
        assert kbs.resources == {}


def test_reference_with_a_context_reaches_the_provider(
    moto: RunningAws, image: Image, skopeo: Skopeo, tmp_path: Path, command: Command
) -> None:
    uri = f"awskms:///{moto.key}?context=app=demo"
    with our_provider(skopeo, tmp_path, "--wrap-with", uri) as running:
        encrypted = running.encrypt(image, "")
    annotations = [
        json.loads(b64decode(x.annotations[PACKETS]))["annotations"] for x in encrypted.layers
    ]
    assert annotations == [{"encryption_context": {"app": "demo"}}] * 3
    command("verify", encrypted.reference, "--wrap-with", f"awskms:///{moto.key}")


def test_skopeo_shows_why_a_key_of_kms_cannot_be_used(
    local_kms: RunningAws, image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    uri = f"awskms:///{local_kms.disabled}"
    with our_provider(skopeo, tmp_path, "--wrap-with", uri) as running:
        for parameters in ("", f"keyid={EXTERNAL}"):
            with pytest.raises(SkopeoError, match="the key is disabled"):
                running.encrypt(image, parameters)


@pytest.mark.usefixtures("open_vault")
def test_skopeo_shows_which_key_id_goes_with_the_servers_key(
    image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    with our_provider(skopeo, tmp_path, "--wrap-with", "hashivault://kek") as running:
        for parameters, says in (
            ("", "no guest asks 'hashivault://kek' for a key: a key ID is needed"),
            (f"keyid={KID}", "no guest can open what 'hashivault://kek' wraps"),
            (f"keyid={EXTERNAL}::algorithm=A256CTR", "wraps with A256GCM only"),
        ):
            with pytest.raises(SkopeoError, match=says):
                running.encrypt(image, parameters)
