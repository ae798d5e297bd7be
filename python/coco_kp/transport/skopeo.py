"""Transports that only skopeo knows, read: it copies the image into a temporary ``dir:``.

That keeps layers, config and manifest as they are; an OCI layout would have skopeo compress them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from coco_kp.errors import RemoteError, shown
from coco_kp.model.reference import FileReference, SkopeoReference
from coco_kp.skopeo import run_program
from coco_kp.transport.directory import DirectorySource
from coco_kp.transport.files import temporary_folder
from coco_kp.transport.staging import Staging

_COPY_SECONDS: Final = 6 * 3600.0


class SkopeoSource(DirectorySource):
    """An image that was copied out of a place that only skopeo can read."""

    def __init__(self, reference: SkopeoReference) -> None:
        program = shutil.which("skopeo")
        if program is None:
            raise RemoteError(
                f"{reference.transport}: can only be read through skopeo, which is not installed",
                "install skopeo, or push or save the image to docker://, oci: or oci-archive:",
            )
        self._staging = Staging(temporary_folder())
        folder = self._staging.folder / "image"
        try:
            _copy(Path(program), reference.text, folder)
        except BaseException:
            self.close()
            raise
        super().__init__(FileReference("dir", str(folder)))
        self.reference = str(reference)

    def close(self) -> None:
        """Remove the copy."""
        self._staging.close()


def _copy(program: Path, image: str, folder: Path) -> None:
    # "--": an image's name is not an option, whatever it looks like.
    arguments = ["copy", "--quiet", "--all", "--", image, f"dir:{folder}"]
    result = run_program(program, arguments, timeout=_COPY_SECONDS)
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or [""]
        raise RemoteError(f"skopeo cannot read {image}: {shown(said[-1])}")
