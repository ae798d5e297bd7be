"""``python -m benches.endless_registry --images N --key FILE``: images that are made up.

A registry in a process of its own, which says ``host:port`` on stdout and ends with its stdin. It
has N images in repositories of ten, ``team/app0`` and so on, each with a layer of all, one of its
repository and one of its own, and under ``sealed/`` the same encrypted for the KEK in FILE.
Manifests are made when they are asked for; of an image it keeps its digest. No blob is there: what
reads one has read too much. ``/seen`` counts what was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.sim.registry import split

from coco_kp.crypto import Kek
from coco_kp.keys.wrapper import KekRecipient
from coco_kp.model.layer_encryption import with_encryption
from coco_kp.model.layer_options import PrivateOptions, PublicOptions
from coco_kp.model.resource_uri import parse_resource_uri

KID: Final = "kbs:///default/key/fleet"
TAGS: Final = 10
"""Images of a repository."""

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_SEALED: Final = "sealed/"
_PAGE: Final = 100
_TLS: Final = b"\x16"
"""How a handshake begins, which is tried before plain HTTP."""

_Headers = dict[str, str]
_Reply = tuple[int, _Headers, bytes]


@dataclass(frozen=True)
class Images:
    """The images, by number."""

    count: int
    recipient: KekRecipient

    def plain(self, number: int) -> bytes:
        """Return the manifest of an image."""
        return _document(number, [self._layer(name) for name in self._names(number)])

    def sealed(self, number: int) -> bytes:
        """Return the manifest of an image that was encrypted; another one each time."""
        return _document(number, [self._sealed_layer(name) for name in self._names(number)])

    @property
    def repositories(self) -> list[str]:
        """Their repositories."""
        return [f"team/app{number}" for number in range(-(-self.count // TAGS))]

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository."""
        first = int(repository.removeprefix("team/app")) * TAGS
        return [f"v{tag}" for tag in range(min(TAGS, self.count - first))]

    def _names(self, number: int) -> tuple[str, str, str]:
        return "base", f"repository {number // TAGS}", f"image {number}"

    def _layer(self, name: str) -> dict[str, Any]:
        return {"mediaType": _LAYER, "digest": _digest(name.encode()), "size": 1000}

    def _sealed_layer(self, name: str) -> dict[str, Any]:
        options = PrivateOptions(bytes(32), bytes(16), _digest(name.encode()))
        packet = self.recipient.wrap(options.to_json())
        return {
            "mediaType": f"{_LAYER}+encrypted",
            "digest": _digest(f"sealed {name}".encode()),
            "size": 1000,
            "annotations": with_encryption({}, [packet], PublicOptions(bytes(32))),
        }


class Registry:
    """Answers for the images; ``seen`` counts requests by method and kind."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._numbers = {
            hashlib.sha256(images.plain(number)).digest(): number for number in range(images.count)
        }
        self.seen = Counter[str]()

    def answer(self, method: str, target: str) -> _Reply:
        """Answer one request."""
        url = urlsplit(target)
        if url.path == "/seen":
            seen, self.seen = self.seen, Counter()
            return 200, {}, json.dumps(seen).encode()
        repository, kind, name = split(url.path)
        self.seen[f"{method} {kind or url.path}"] += 1
        if url.path == "/v2/":
            return 200, {}, b"{}"
        if url.path == "/v2/_catalog":
            return _page(url.path, url.query, "repositories", self._images.repositories)
        if kind == "tags":
            return _page(url.path, url.query, "tags", self._images.tags(repository))
        if kind == "manifests" and method in ("GET", "HEAD"):
            manifest = self._manifest(repository, name)
            return (
                200,
                {"Content-Type": _MANIFEST, "Docker-Content-Digest": _digest(manifest)},
                manifest,
            )
        return 404, {}, b'{"errors": [{"code": "UNSUPPORTED", "message": "made up"}]}'

    def _manifest(self, repository: str, name: str) -> bytes:
        if name.startswith("sha256:"):
            return self._images.plain(self._numbers[bytes.fromhex(name[7:])])
        make = self._images.sealed if repository.startswith(_SEALED) else self._images.plain
        app = repository.removeprefix(_SEALED).removeprefix("team/app")
        return make(int(app) * TAGS + int(name[1:]))


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a client of registries speaks it: no body comes, and one goes whole."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._data.startswith(_TLS):
            self._transport.close()
        while b"\r\n\r\n" in self._data:
            head, self._data = self._data.split(b"\r\n\r\n", 1)
            method, target, _ = head.decode("ascii").split("\r\n", 1)[0].split(" ")
            status, headers, body = self._registry.answer(method, target)
            lines = {"Content-Length": str(len(body)), **headers}.items()
            text = "".join(f"{name}: {value}\r\n" for name, value in lines)
            sent = b"" if method == "HEAD" else body
            self._transport.write(f"HTTP/1.1 {status} -\r\n{text}\r\n".encode() + sent)


def _document(number: int, layers: list[dict[str, Any]]) -> bytes:
    config = {"mediaType": _CONFIG, "digest": _digest(f"config {number}".encode()), "size": 1000}
    return json.dumps(
        {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
    ).encode()


def _page(path: str, query: str, member: str, names: list[str]) -> _Reply:
    last = parse_qs(query).get("last", [""])[0]
    start = names.index(last) + 1 if last else 0
    page = names[start : start + _PAGE]
    more = urlencode({"n": _PAGE, "last": page[-1]}) if start + _PAGE < len(names) else ""
    link = {"Link": f'<{path}?{more}>; rel="next"'} if more else {}
    return 200, link, json.dumps({member: page}).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def _serve(registry: Registry) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(registry), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description="a registry that makes up its images")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--key", type=Path, required=True)
    chosen = parser.parse_args()
    recipient = KekRecipient(parse_resource_uri(KID), Kek(chosen.key.read_bytes()))
    asyncio.run(_serve(Registry(Images(chosen.images, recipient))))


if __name__ == "__main__":
    main()
