"""The skopeo of this machine: whether there is one, and whether it knows key providers.

Debian 12's is built without them, and says so only when it is asked to encrypt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coco_kp.errors import RemoteError

_PROBE_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Skopeo:
    """A skopeo, its version as it prints it, and whether it was built with key providers."""

    program: Path
    version: str
    knows_key_providers: bool


def find_skopeo() -> Skopeo | None:
    """Look for skopeo on ``PATH``. Raises ``RemoteError`` for one that does not answer."""
    found = shutil.which("skopeo")
    if found is None:
        return None
    version = run_skopeo(Path(found), ["--version"], timeout=_PROBE_SECONDS).stdout
    # Keys are parsed before the source is looked at; a build without key providers stops there.
    # One with them would make the folder of its destination: this one cannot be made.
    probe = ["copy", "--insecure-policy", "--encryption-key", "provider:probe:x"]
    refusal = run_skopeo(
        Path(found), [*probe, "dir:/dev/null/x", "dir:/dev/null/x"], timeout=_PROBE_SECONDS
    )
    return Skopeo(
        program=Path(found),
        version=version.removeprefix("skopeo version ").strip(),
        knows_key_providers="protocol not recognized" not in refusal.stderr,
    )


def run_skopeo(
    program: Path,
    arguments: list[str],
    *,
    timeout: float,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run skopeo in ``folder`` for at most ``timeout`` seconds, with ``environment`` added to ours.

    Never put a key into ``arguments``: every user of the machine can read them. Raises
    ``RemoteError`` if it cannot be run or takes longer; its exit status is the caller's to judge.
    """
    try:
        return subprocess.run(
            [program, *arguments],
            cwd=folder,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RemoteError(f"skopeo did not end within {timeout:.0f} seconds") from None
    except OSError as failure:
        raise RemoteError(f"cannot run {program}: {failure.strerror}") from None
