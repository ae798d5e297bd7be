"""Secrets that a SEV guest was launched with, as its kernel shows them.

The kernel's module ``efi_secret`` makes a file of each, named by its GUID. Reading goes as upstream
does it (docs/protocols.md 4): read, delete (which wipes it from the guest's memory), unload the
module, so that nothing that starts later in the guest can read it.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.errors import KekError
from coco_kp.files import is_there, read_file, reason
from coco_kp.redact import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from coco_kp.files import StrPath

SEV_SECRETS: Final = Path("/sys/kernel/security/secrets/coco")
"""Where a SEV guest's kernel shows the secrets that the guest was launched with."""

MAX_SECRET: Final = 4 * 1024 * 1024
"""Bytes; the whole injected page has 4 KiB in practice."""

_SECURITYFS: Final = Path("/sys/kernel/security")
_COMMAND_TIMEOUT: Final = 10  # seconds

_log = logging.getLogger(__name__)


class InjectedSecrets:
    """The secrets of a SEV guest: what was read is deleted, and from then on only here.

    Threads, and the KBCs of one owner, share it.

    Args:
        directory: Where the guest's kernel shows them.
        keep: Delete none.
    """

    def __init__(self, directory: StrPath = SEV_SECRETS, *, keep: bool = False) -> None:
        self._directory = Path(directory)
        self._keep = keep
        self._lock = threading.Lock()
        self._taken: dict[str, bytes] = {}

    def take(self, guid: str) -> bytes:
        """Return the secret ``guid``. Raises ``KekError`` as `take_secret` does."""
        with self._lock:
            if guid not in self._taken:
                self._taken[guid] = take_secret(guid, self._directory, keep=self._keep)
            return self._taken[guid]

    def name_of(self, guid: str) -> str:
        """Return where the secret is, or was, for messages."""
        return shown(str(self._directory / guid))


THIS_GUESTS: Final = InjectedSecrets()
"""Those of the guest that this process runs in: deleted once, they are for all of the process."""


def _run(*command: str) -> bool:
    import subprocess  # noqa: PLC0415 (few guests have a secret, and it takes its time to load)

    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def take_secret(
    guid: str,
    folder: Path = SEV_SECRETS,
    *,
    keep: bool = False,
    securityfs: Path = _SECURITYFS,
    run: Callable[..., bool] = _run,
) -> bytes:
    """Read the secret ``guid`` of ``folder`` and delete it, unless it is to be kept.

    Only for a directory of ``securityfs`` the module is loaded before and unloaded behind. Raises
    ``KekError`` if it cannot be read or, since others could then read it, not be deleted.
    """
    file = folder / guid
    is_kernels = folder.is_relative_to(securityfs)
    if is_kernels and not is_there(file):
        if not securityfs.is_mount():
            run("mount", "-t", "securityfs", "securityfs", str(securityfs))
        run("modprobe", "efi_secret")
    try:
        data = read_file(file, MAX_SECRET, KekError).data
    except KekError as error:
        raise KekError(
            error.message,
            "there the kernel of a SEV guest shows it",
            code="injected-secret-unreadable",
        ) from None
    if len(data) > MAX_SECRET:
        raise KekError(f"the secret {shown(str(file))} has more than {MAX_SECRET} bytes")
    if keep:
        return data
    try:
        file.unlink()
    except OSError as failure:
        raise KekError(
            f"cannot delete the secret {shown(str(file))}: {reason(failure)}",
            "others in this guest could read it",
            code="injected-secret-undeleted",
        ) from None
    if is_kernels and not run("modprobe", "-r", "efi_secret"):
        _log.warning("the kernel module efi_secret could not be unloaded")
    return data
