"""Trees of Debian 13 as layers of images have them: packages unpacked, not configured, in a tar."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from typing import TYPE_CHECKING, Final

from .cache import cached, run
from .debian import TRIXIE, _download, _require_debian

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BASE: Final = ("?essential", "apt", "ca-certificates", "python3")
"""What debootstrap's smallest variant has (apt-patterns(7)), and Python: 40 MB to fetch."""

LIBRARIES: Final = ("python3-torch", "python3-scipy", "python3-pandas")
"""Python libraries, with all that they depend on: 260 MB to fetch."""

LEVEL: Final = 6
"""Of gzip, as most tools have it."""


def gzip_layer(name: str, packages: Sequence[str]) -> Path:
    """Return the file of a layer with these packages. Raises `PeerUnavailableError`."""
    recipe = f"{' '.join(packages)}\n"
    return cached(f"{TRIXIE.name}-{name}", recipe, lambda folder: _make(folder, packages)) / "layer"


def _make(folder: Path, packages: Sequence[str]) -> None:
    _require_debian()
    apt, tree = folder / "apt", folder / "tree"
    for package in _download(TRIXIE.codename, packages, apt):
        run(["dpkg-deb", "--extract", package, tree])
    shutil.rmtree(apt)
    with (
        gzip.open(folder / "layer", "wb", LEVEL) as layer,
        tarfile.open(fileobj=layer, mode="w|") as archive,
    ):
        archive.add(tree, ".", filter=_as_root)
    shutil.rmtree(tree)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    return member.replace(uid=0, gid=0, uname="root", gname="root", deep=False)
