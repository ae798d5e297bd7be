"""Transports that only skopeo knows: it copies the image into, or out of, a temporary ``dir:``.

That keeps layers, config and manifest as they are; an OCI layout would have skopeo compress them.
Docker is found where ``DOCKER_HOST`` says, as by its own client; skopeo alone does not look there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Final

from coco_kp.errors import RemoteError
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Manifest
from coco_kp.model.reference import FileReference, SkopeoReference
from coco_kp.skopeo import run_skopeo
from coco_kp.transport.directory import DirectorySink, DirectorySource
from coco_kp.transport.files import temporary_folder
from coco_kp.transport.staging import Staging

_COPY_SECONDS: Final = 6 * 3600.0
_DOCKER: Final = "docker-daemon"


class SkopeoSource(DirectorySource):
    """An image that was copied out of a place that only skopeo can read."""

    def __init__(self, reference: SkopeoReference) -> None:
        program = _skopeo(reference, "read")
        self._staging = Staging(temporary_folder())
        folder = self._staging.folder / "image"
        try:
            host = _daemon_host(reference, "--src-daemon-host")
            _copy(program, [*host, "--", reference.text, f"dir:{folder}"], f"read {reference}")
        except BaseException:
            self.close()
            raise
        super().__init__(FileReference("dir", str(folder)))
        self.reference = str(reference)

    def close(self) -> None:
        """Remove the copy."""
        self._staging.close()


class SkopeoSink(DirectorySink):
    """A place that only skopeo can write; it is given the image when all else is well."""

    def __init__(self, reference: SkopeoReference) -> None:
        self._target = reference
        self._program = _skopeo(reference, "written")
        self._copy = Staging(temporary_folder())
        try:
            super().__init__(FileReference("dir", str(self._copy.folder / "image")))
        except BaseException:
            self._copy.close()
            raise

    def set_reference(self, manifest: Manifest, *, replacing: Digest | None = None) -> None:
        """Have skopeo copy the image to where it belongs."""
        super().set_reference(manifest, replacing=replacing)
        host = _daemon_host(self._target, "--dest-daemon-host")
        source = f"dir:{self._copy.folder / 'image'}"
        what = f"write {self._target}"
        try:
            _copy(self._program, [*host, "--", source, self._target.text], what)
        except RemoteError as error:
            if error.message.endswith("closed pipe"):  # all that skopeo tells of no daemon
                error.hint = "check that the docker daemon runs, and that you may use its socket"
            raise

    def close(self) -> None:
        """Remove what skopeo was given."""
        super().close()
        self._copy.close()


def _skopeo(reference: SkopeoReference, what: str) -> Path:
    program = shutil.which("skopeo")
    if program is None:
        raise RemoteError(
            f"{reference.transport}: can only be {what} through skopeo, which is not installed",
            f"install skopeo, or have the image {what} as docker://, oci: or oci-archive:",
        )
    return Path(program)


def _daemon_host(reference: SkopeoReference, option: str) -> list[str]:
    host = os.environ.get("DOCKER_HOST")
    return [f"{option}={host}"] if host and reference.transport == _DOCKER else []


def _copy(program: Path, arguments: list[str], what: str) -> None:
    """Have skopeo copy; ``arguments`` have "--" before names, which are not options."""
    result = run_skopeo(program, ["copy", "--quiet", "--all", *arguments], timeout=_COPY_SECONDS)
    if result.returncode != 0:
        raise RemoteError(f"skopeo cannot {what}: {_cause(result.stderr)}")


_LOGGED: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
_CAUSE: Final = 400
"""Characters; in Go the cause stands at the end of an error."""


def _cause(stderr: str) -> str:
    """Return what a program that logs as Go's logrus does says of its failure."""
    said = (stderr.strip().splitlines() or ["(nothing)"])[-1]
    if logged := _LOGGED.search(said):
        with contextlib.suppress(ValueError):  # Go quotes much as JSON does
            said = str(json.loads(logged[1]))
    return said if len(said) <= _CAUSE else f"…{said[-_CAUSE:]}"
