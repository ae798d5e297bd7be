"""The programs of the Confidential Containers project that ours must agree with, on loopback."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .cache import PeerUnavailableError
from .daemon import daemon
from .folder import folder_peer, peer_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .daemon import Daemon

KEYS_FILE = "aa-offline_fs_kbc-keys.json"
"""The name, in /etc, from which the agent's offline_fs_kbc reads its keys; it knows no other."""


@contextmanager
def upstream_provider(folder: Path, log_level: str = "info") -> Iterator[Daemon]:
    """Run ``coco_keyprovider``, the key provider that ours replaces; it cannot unwrap."""
    command = [str(folder_peer("coco_keyprovider")), "--socket", "127.0.0.1:0"]
    env = peer_environment(RUST_LOG=f"coco_keyprovider={log_level}")
    with daemon(command, folder / "coco_keyprovider.log", env) as running:
        yield running


@contextmanager
def attestation_agent(
    folder: Path, keys: str = "{}", secrets: Path | None = None
) -> Iterator[Daemon]:
    """Run the attestation agent 0.6, with which a guest unwraps; it cannot wrap.

    ``keys`` is the text of its keys file. It sees a folder with that file alone in place of /etc,
    in a mount namespace of its own: nothing of the machine's is touched. ``secrets`` is the folder
    of the secrets that a SEV guest was launched with, each in a file named by its GUID.
    """
    program = folder_peer("attestation-agent-0.6")
    etc = folder / "etc"
    etc.mkdir()
    (etc / KEYS_FILE).write_text(keys)
    # the second address differs so that the two sockets can be told apart, both at port 0
    sockets = ["--keyprovider_sock", "127.0.0.1:0", "--getresource_sock", "127.0.0.2:0"]
    command = [*_private_etc(etc), str(program), *sockets]
    env = peer_environment(AA_SEV_SECRETS_DIR=str(secrets or folder / "no-secrets"))
    with daemon(command, folder / "attestation-agent.log", env) as running:
        yield running


def _private_etc(etc: Path) -> list[str]:
    """Return the command that runs another with ``etc`` in place of /etc; needs no root."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mounted = [*namespace, "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', str(etc)]
    tried = subprocess.run([*mounted, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise PeerUnavailableError(
            f"the agent's keys file needs a mount namespace of its own: {tried.stderr.strip()}"
        )
    return mounted
