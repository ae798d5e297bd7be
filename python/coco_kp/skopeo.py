"""skopeo, buildah and podman on this machine: which are there, and which can call a key provider.

Debian 12's are built without key providers, and say so only when they are asked to encrypt.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from coco_kp.errors import RemoteError
from coco_kp.programs import run_program
from coco_kp.redact import shown
from coco_kp.values import dataclass

_PROBE_SECONDS: Final = 20
_ELF: Final = b"\x7fELF"
_GRPC_TLS_TAG: Final = b'json:"grpc-tls,'  # ocicrypt 1.3, config/keyprovider-config/config.go

# Of a provider that no configuration names: nothing is called.
_PROBE_KEY: Final = ("--encryption-key", "provider:probe:x")


@dataclass(frozen=True, slots=True)
class Program:
    """One of `PROGRAMS`: its path, its version, and whether its ``--encryption-key`` takes one."""

    path: Path
    version: str
    knows_key_providers: bool

    def knows_grpc_tls(self) -> bool | None:
        """Return whether it reads ``grpc-tls``; None where its file is a script, and says nothing.

        ocicrypt before 1.3 does not, and calls a provider in clear whatever the configuration says.
        Its version is not to be had from programs that distributions build, but each Go program
        holds the names of the JSON members that it reads. Raises ``RemoteError``.
        """
        try:
            with (
                self.path.open("rb") as file,
                mmap(file.fileno(), 0, access=ACCESS_READ) as content,
            ):
                return content.find(_GRPC_TLS_TAG) >= 0 if content[:4] == _ELF else None
        except (OSError, ValueError):
            raise RemoteError(f"cannot read {self.path}") from None


def find_program(name: str, seconds: float = _PROBE_SECONDS) -> Program | None:
    """Look for one of `PROGRAMS` on ``PATH``.

    Nothing is changed or left behind. Raises ``RemoteError`` for one that does not answer within
    ``seconds``.
    """
    found = shutil.which(name)
    if found is None:
        return None
    with tempfile.TemporaryDirectory(prefix="coco-kp-probe-") as folder:
        trial = _Trial(Path(found).absolute(), folder, seconds)
        printed = trial.run("--version").stdout
        version = printed.removeprefix(f"{name} version").strip().partition(" ")[0]
        return Program(trial.program, version, _PROBES[name](trial))


@dataclass(frozen=True, slots=True)
class _Trial:
    """Runs a program that keeps in ``folder`` what it would keep in directories of the user."""

    program: Path
    folder: str
    seconds: float

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kinds = ("RUNTIME_DIR", "CONFIG_HOME", "DATA_HOME", "CACHE_HOME")
        places = {"TMPDIR": self.folder} | {f"XDG_{kind}": self.folder for kind in kinds}
        return run_skopeo(self.program, list(arguments), timeout=self.seconds, environment=places)

    def looks_for(self, image: str, *copy: str) -> bool:
        """Return whether ``copy`` gets as far as to look for an image that is not there.

        Keys are parsed before, and a build without key providers stops at those of a provider.
        """
        refusal = self.run(*copy, f"dir:{self.folder}/copy").stderr
        if "protocol not recognized" in refusal:
            return False
        if image not in refusal:
            said = refusal.strip().splitlines() or [""]
            raise RemoteError(f"{self.program} does not run here: {shown(said[-1])}")
        return True


def _skopeo_knows_key_providers(skopeo: _Trial) -> bool:
    # An oci: source is opened before its cache of blobs, which is the machine's for root.
    source = f"oci:{skopeo.folder}/none"
    return skopeo.looks_for(source, "copy", "--insecure-policy", *_PROBE_KEY, source)


def _buildah_knows_key_providers(buildah: _Trial) -> bool:
    # It opens its storage first, so it is given an empty one. A name with a host keeps it from its
    # cache of short names.
    folder = buildah.folder
    storage = (f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs")
    image = "localhost/coco-kp-probe"
    return buildah.looks_for(image, *storage, "push", *_PROBE_KEY, image)


def _podman_knows_key_providers(podman: _Trial) -> bool:
    # To run it would leave a process behind where the user is not root. Its help does not, and says
    # enough: 4.3 and older have no such option, and those that have it know providers.
    return "--encryption-key" in podman.run("push", "--help").stdout


_PROBES: Final[dict[str, Callable[[_Trial], bool]]] = {
    "skopeo": _skopeo_knows_key_providers,
    "buildah": _buildah_knows_key_providers,
    "podman": _podman_knows_key_providers,
}

PROGRAMS: Final = tuple(_PROBES)
"""The programs that are looked for, by name."""


def run_skopeo(
    program: Path,
    arguments: list[str],
    *,
    timeout: float,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of `PROGRAMS` as `run_program` does, for at most ``timeout`` seconds.

    Raises ``RemoteError`` if it cannot be run or takes longer.
    """
    try:
        done = run_program(
            [program, *arguments], seconds=timeout, environment=environment, folder=folder
        )
    except subprocess.TimeoutExpired:
        raise RemoteError(f"{program.name} did not end within {timeout:.0f} seconds") from None
    except OSError as failure:
        raise RemoteError(f"cannot run {program}: {failure.strerror}") from None
    output, errors = (said.decode("utf-8", "replace") for said in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)
