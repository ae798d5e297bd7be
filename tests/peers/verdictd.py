"""Verdictd, the broker of the KBC ``eaa``, on loopback, for one test alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .daemon import daemon
from .folder import folder_peer, peer_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def verdictd(folder: Path, keys: Mapping[str, bytes]) -> Iterator[str]:
    """Run it, attesting nobody, with these keys by kid; give its ``host:port``."""
    folder.mkdir(exist_ok=True)
    for kid, key in keys.items():
        file = folder / "opt" / "verdictd" / "keys" / kid
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(key)
    # the second address differs so that the two sockets can be told apart, both at port 0
    listen = ["--listen", "127.0.0.1:0", "--client-api", "127.0.0.2:0"]
    null = ["--attester", "nullattester", "--verifier", "nullverifier"]
    openssl = ["--tls", "openssl", "--crypto", "openssl"]
    command: list[str | Path] = [folder_peer("verdictd"), *listen, *null, *openssl]
    # it looks for its keys in the relative path opt/verdictd/keys (docs/peers.md)
    with daemon(command, folder / "verdictd.log", peer_environment(), folder) as running:
        yield running.address()
