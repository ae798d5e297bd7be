"""``coco-kp demo``: the whole way of an image, in a temporary folder, compared at its end.

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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coco_kp.cli.output import verbosity
from coco_kp.errors import IntegrityError, RemoteError
from coco_kp.model.ocicrypt_config import VARIABLE
from coco_kp.skopeo import Program, find_program, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator

_KID: Final = "kbs:///default/key/key_id1"
_SECONDS: Final = 60.0


@click.command("demo", short_help="Show the whole way of an image.")
@verbosity
def command() -> None:
    """Make a key and a small image, encrypt, look, verify, decrypt and compare.

    Works in a temporary folder that is removed at the end. Where a skopeo with key-provider support
    is on PATH, it encrypts and decrypts the same image, too, through a provider that is served
    meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="coco-kp-demo-") as folder:
        demo = _Demo(Path(folder))
        demo.make_key_and_image()
        demo.through_coco_kp()
        skopeo = find_program("skopeo")
        if skopeo and skopeo.knows_key_providers:
            demo.through_skopeo(skopeo)
        else:
            _say("skopeo is left out: none with key-provider support is on PATH (coco-kp doctor)")
    _say("done: each layer was encrypted, and came back byte for byte")


class _Demo:
    """Runs the steps in one folder, and stops at the first that fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make_key_and_image(self) -> None:
        _say("a key: in a keys file, as an offline_fs guest has it, and alone")
        self._coco_kp("keys", "generate", "--count", "1", "-o", "keys.json")
        self._coco_kp("keys", "export", "keys.json", _KID, "kek")
        _say("a small image with two layers, in the folder image")
        _write_image(self._folder / "image")

    def through_coco_kp(self) -> None:
        _say("encrypt it, look at it, prove that a guest can open it, decrypt it")
        guest = ("--kbc", "offline_fs", "--keys", "keys.json")
        self._coco_kp("encrypt", "oci:image", "oci:encrypted", "--keyid", _KID, "--keypath", "kek")
        self._coco_kp("inspect", "oci:encrypted")
        self._coco_kp("verify", "oci:encrypted", "--target", "coco", *guest)
        self._coco_kp("decrypt", "oci:encrypted", "oci:decrypted", *guest)
        self._compare("decrypted")

    def through_skopeo(self, skopeo: Program) -> None:
        _say(f"the same through skopeo {skopeo.version}, which calls the key provider")
        with self._serving() as address:
            self._coco_kp("config", "--grpc", address, "-o", "ocicrypt.json")
            parameters = f"keypath=kek::keyid={_KID}"
            for flag, value, source, target in (
                ("--encryption-key", parameters, "image", "by-skopeo"),
                ("--decryption-key", "offline_fs_kbc::null", "by-skopeo", "decrypted-by-skopeo"),
            ):
                key = f"provider:attestation-agent:{value}"
                copy = ["copy", "--insecure-policy", flag, key, f"oci:{source}", f"oci:{target}"]
                _show(f"{VARIABLE}=ocicrypt.json", "skopeo", *copy)
                done = run_program(
                    skopeo.path,
                    copy,
                    timeout=_SECONDS,
                    environment={VARIABLE: "ocicrypt.json"},
                    folder=self._folder,
                )
                if done.returncode:
                    raise RemoteError(f"skopeo failed: {done.stderr.strip()}")
        self._coco_kp("inspect", "oci:by-skopeo")
        self._compare("decrypted-by-skopeo")

    def _coco_kp(self, *arguments: str) -> None:
        _show("coco-kp", *arguments)
        command = [sys.executable, "-m", "coco_kp", *arguments]
        done = subprocess.run(command, cwd=self._folder, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:  # the command has said why
            raise RemoteError(f"coco-kp {arguments[0]} ended with exit code {done.returncode}")

    @contextmanager
    def _serving(self) -> Iterator[str]:
        """Serve while the block runs; give the address."""
        arguments = ["serve", "--socket", "127.0.0.1:0", "--keys", "keys.json"]
        _show("coco-kp", *arguments, "&")
        with subprocess.Popen(
            [sys.executable, "-m", "coco_kp", *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                assert server.stderr  # noqa: S101 (it is a pipe)
                ready, _, address = server.stderr.readline().strip().partition(" ready on ")
                if not address:
                    raise RemoteError(f"the provider did not start: {ready}")
                yield address
            finally:
                server.terminate()
                server.communicate(timeout=_SECONDS)

    def _compare(self, name: str) -> None:
        if _digests(self._folder / name) != _digests(self._folder / "image"):
            raise IntegrityError(f"the image {name} is not the one that was encrypted")
        _say(f"{name}: config and layers have the digests that they had")


def _digests(layout: Path) -> list[str]:
    """Give the digests of an image's config and layers, computed from their bytes."""
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
        return add(kind, json.dumps(document).encode())

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


def _show(*words: str) -> None:
    """Show a command as a user would type it."""
    click.echo("$ " + " ".join(word if word == "&" else shlex.quote(word) for word in words))
