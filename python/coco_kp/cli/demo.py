"""``coco-kp demo``: the whole way of an image, in a directory of its own, compared at its end.

Each step is a command as a user would type it, run as it is printed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from coco_kp.cli.output_options import verbosity
from coco_kp.errors import InputError, IntegrityError, RefusedError, RemoteError
from coco_kp.keyprovider.config import VARIABLE
from coco_kp.model.layer_encryption import DEFAULT_PROVIDER_NAME
from coco_kp.redact import shown
from coco_kp.skopeo import Program, find_program, run_skopeo

_KID: Final = "kbs:///default/key/key_id1"
_SECONDS: Final = 60.0
_COMMANDS: Final = "commands.sh"


@click.command("demo", short_help="Show the whole way of an image.")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Work in DIR, which must be empty or not there, and leave all of it, with the commands.",
)
@verbosity
def command(keep: Path | None) -> None:
    """Make a key and a small image, encrypt, look, verify, decrypt and compare.

    Works in a temporary directory that is removed at the end, but for --keep. Where a skopeo with
    key-provider support is on PATH, it encrypts and decrypts the same image, too, and calls coco-kp
    for the keys.
    """
    if keep:
        _make_folder(keep)
        _show_all(_Demo(keep))
        _say(f"kept in {keep}: the images, the keys, and the commands in {_COMMANDS}")
    else:
        with tempfile.TemporaryDirectory(prefix="coco-kp-demo-") as folder:
            _show_all(_Demo(Path(folder)))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if next(folder.iterdir(), None):
            raise RefusedError(f"the directory {shown(str(folder))} is not empty", "name a new one")
    except OSError as failure:
        raise InputError(
            f"cannot make the directory {shown(str(folder))}: {failure.strerror}"
        ) from None


def _show_all(demo: _Demo) -> None:
    demo.make_key_and_image()
    demo.through_coco_kp()
    skopeo = find_program("skopeo")
    if skopeo and skopeo.knows_key_providers:
        demo.through_skopeo(skopeo)
    else:
        _say("skopeo is left out: none with key-provider support is on PATH (coco-kp doctor)")
    _say("done: each layer was encrypted, and came back byte for byte")


class _Demo:
    """Runs the steps in one directory, notes each command, and stops at the first that fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._write_down(
            "# What coco-kp demo ran here. Where image is and nothing else, it runs again."
        )
        self._write_down("set -e")

    def make_key_and_image(self) -> None:
        _say("a small image with two layers, in the directory image")
        _write_image(self._folder / "image")
        _say("a key: in a keys file, as an offline_fs guest has it, and alone")
        self._coco_kp("keys", "generate", "--count", "1", "-o", "keys.json")
        self._coco_kp("keys", "export", "keys.json", _KID, "kek")

    def through_coco_kp(self) -> None:
        _say("encrypt it, look at it, prove that a guest can open it, decrypt it")
        guest = ("--kbc", "offline_fs", "--keys", "keys.json")
        self._coco_kp("encrypt", "oci:image", "oci:encrypted", "--keyid", _KID, "--keypath", "kek")
        self._coco_kp("inspect", "oci:encrypted")
        self._coco_kp("verify", "oci:encrypted", "--target", "coco", *guest)
        self._coco_kp("decrypt", "oci:encrypted", "oci:decrypted", *guest)
        self._compare("decrypted")

    def through_skopeo(self, skopeo: Program) -> None:
        _say(f"the same through skopeo {skopeo.version}, which calls coco-kp for the keys")
        self._coco_kp("config", "--cmd", "-o", "ocicrypt.json", "--", "--keys", "keys.json")
        wrap, unwrap = f"keypath=kek::keyid={_KID}", "offline_fs_kbc::null"
        self._skopeo(skopeo, "--encryption-key", wrap, "image", "by-skopeo")
        self._coco_kp("inspect", "oci:by-skopeo")
        self._skopeo(skopeo, "--decryption-key", unwrap, "by-skopeo", "decrypted-by-skopeo")
        self._compare("decrypted-by-skopeo")

    def _coco_kp(self, *arguments: str) -> None:
        self._show("coco-kp", *arguments)
        command = [sys.executable, "-m", "coco_kp", *arguments]
        done = subprocess.run(command, cwd=self._folder, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:  # the command has said why
            raise RemoteError(f"coco-kp {arguments[0]} ended with exit code {done.returncode}")

    def _skopeo(self, skopeo: Program, flag: str, value: str, source: str, target: str) -> None:
        key = f"provider:{DEFAULT_PROVIDER_NAME}:{value}"
        copy = ["copy", "--insecure-policy", flag, key, f"oci:{source}", f"oci:{target}"]
        self._show(f"{VARIABLE}=ocicrypt.json", "skopeo", *copy)
        done = run_skopeo(
            skopeo.path,
            copy,
            timeout=_SECONDS,
            environment={VARIABLE: "ocicrypt.json"},
            folder=self._folder,
        )
        if done.returncode:
            raise RemoteError(f"skopeo failed: {done.stderr.strip()}")

    def _compare(self, name: str) -> None:
        if _digests(self._folder / name) != _digests(self._folder / "image"):
            raise IntegrityError(f"the image {name} is not the one that was encrypted")
        _say(f"{name}: config and layers have the digests that they had")

    def _show(self, *words: str) -> None:
        """Show a command as a user would type it, and write it down."""
        line = shlex.join(words)
        click.echo(f"$ {line}")
        self._write_down(line)

    def _write_down(self, line: str) -> None:
        with (self._folder / _COMMANDS).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _digests(layout: Path) -> list[str]:
    """Return the digests of an image's config and layers, computed from their bytes."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]))
    descriptors = [manifest["config"], *manifest["layers"]]
    return [hashlib.sha256(_blob(layout, descriptor)).hexdigest() for descriptor in descriptors]


def _blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    digest: str = descriptor["digest"]
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _write_image(layout: Path) -> None:
    """Write an OCI layout with one image of two layers."""
    tars = [_tar("etc/motd", b"only an attested guest reads this\n"), _tar("data", bytes(1 << 20))]
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(data)
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def add_json(kind: str, document: dict[str, Any]) -> dict[str, Any]:
        # As the builders write it, so that it is the same again once decrypted.
        return add(kind, json.dumps(document, separators=(",", ":")).encode())

    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add_json("config.v1+json", config),
        "layers": [add("layer.v1.tar+gzip", gzip.compress(data, mtime=0)) for data in tars],
    }
    index = {"schemaVersion": 2, "manifests": [add_json("manifest.v1+json", manifest)]}
    (layout / "index.json").write_text(json.dumps(index))


def _tar(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _say(text: str) -> None:
    click.secho(f"# {text}", bold="NO_COLOR" not in os.environ)
