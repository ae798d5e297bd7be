"""Annotations that let a layer be read in parts, before it is there: positions and digests in it.

They hold of the compressed bytes for which they were made, and of no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HAS_ZSTD: Final = "io.github.containers.compression.zstd"
"""Of an index's entry: its image has zstd layers; containers/image prefers it among equals."""

_PREFIXES: Final = (
    "io.github.containers.zstd-chunked.",  # containers/storage, pkg/chunked
    "containerd.io/snapshot/stargz/",  # stargz-snapshotter, docs/estargz.md
    "io.containers.estargz.",
    "containerd.io/snapshot/nydus-",  # nydus-snapshotter
    "containerd.io/snapshot/overlaybd/",  # accelerated-container-image
)


def without_positions(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return a layer's annotations without those that its bytes, compressed anew, belie."""
    return {name: text for name, text in annotations.items() if not name.startswith(_PREFIXES)}
