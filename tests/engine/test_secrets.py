"""No key is shown by a command on images, however much the user wants to read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from coco_kp.crypto import Kek
from coco_kp.keys.wrapper import KekOpener
from coco_kp.model.layer_encryption import parse_layer_encryption
from tests.support.altered import altered, flip, packet, public_options
from tests.support.command import KID, Command
from tests.support.image import Image
from tests.support.traces import traces


def test_image_commands_show_no_key_in_any_output(
    plain: Image,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
) -> None:
    new = make_key("new")
    text = base64.b64encode(key.read_bytes()).decode()
    wrapped = altered(encrypted, tmp_path / "w", lambda m: packet(m, 2, flip("wrapped_data")))
    hmac = altered(encrypted, tmp_path / "h", lambda m: public_options(m, 2, flip("hmac")))
    bare = altered(encrypted, tmp_path / "b", lambda m: m["layers"][0].pop("annotations"))
    source, target = encrypted.reference, f"oci:{tmp_path}/t"
    own = ("--keyid", KID, "--keypath", key)
    runs: list[tuple[object, ...]] = [
        ("encrypt", plain.reference, target, *own),
        ("encrypt", plain.reference, target, "--keyid", KID, "--key", text),
        ("encrypt", plain.reference, target, "--keyid", KID, "--key", "-"),
        ("encrypt", plain.reference, target, "--keyid", KID, "--key", text + text),
        ("encrypt", plain.reference, target, "--keyid", text, "--keypath", key),
        ("encrypt", plain.reference, target, "--keyid", KID, "--keypath", text),
        ("encrypt", plain.reference, target, "--recipient", f"keyid={KID},keypath={text}"),
        ("encrypt", plain.reference, target, "--recipient", text),
        ("encrypt", plain.reference, text, *own),
        ("encrypt", source, target, *own),
        ("encrypt", plain.reference, target, *own, "--reuse", source, "--format", "json"),
        ("rewrap", source, target, "--keypath", key, "--to-keyid", KID, "--to-keypath", new),
        ("rewrap", source, target, "--keypath", new, "--remove", text),
        ("rewrap", source, target, "--keypath", key, "--add", text),
    ]
    for image in (encrypted, wrapped, hmac, bare):
        runs += [
            ("inspect", image.reference),
            ("verify", image.reference, "--keypath", key, "--format", "json"),
            ("verify", image.reference, "--keypath", new),
            ("decrypt", image.reference, target, "--keypath", key),
            ("decrypt", image.reference, target, "--kbc", text),
        ]
    output = ""
    for arguments in runs:
        outcome = command(*arguments, "-vv", ok=False, stdin=text + "\n")
        assert outcome.code != 1, arguments
        output += outcome.out + outcome.err
    secrets = [key.read_bytes(), new.read_bytes(), *layer_keys(encrypted, key)]
    found = [trace for secret in secrets for trace in traces(secret) if trace in output.encode()]
    assert not found


def layer_keys(image: Image, key: Path) -> set[bytes]:
    """Return the layers' keys and nonces."""
    opener = KekOpener(Kek(key.read_bytes()))
    found = set()
    for layer in image.layers:
        (only,) = parse_layer_encryption(layer.annotations).packets
        options = opener.open(only)
        found |= {options.symkey, options.nonce}
    return found
