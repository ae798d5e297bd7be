"""Media types of manifests and layers, and how they map (docs/protocols.md 1.1)."""

from __future__ import annotations

import re
from typing import Final

from coco_kp.errors import InputError
from coco_kp.redact import shown

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_FOREIGN_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_SCHEMA1: Final = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES: Final = (OCI_INDEX, DOCKER_LIST)

ENCRYPTED: Final = "+encrypted"
"""Suffix of an encrypted layer's media type, always last."""

NONE: Final = ""
GZIP: Final = "gzip"
ZSTD: Final = "zstd"
"""How a layer is compressed, as media types name it (image-spec layer.md)."""

_DOCKER_TO_OCI: Final = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_LIST: OCI_INDEX,
    DOCKER_CONFIG: OCI_CONFIG,
    **{
        f"{docker}{docker_suffix}": f"{oci}{oci_suffix}"
        for docker, oci in ((DOCKER_LAYER, OCI_LAYER), (DOCKER_FOREIGN_LAYER, OCI_FOREIGN_LAYER))
        for docker_suffix, oci_suffix in (("", ""), (".gzip", "+gzip"), (".zstd", "+zstd"))
    },
}


def is_encrypted(media_type: str) -> bool:
    """Return whether a layer of this type is encrypted."""
    return media_type.endswith(ENCRYPTED)


def is_files(media_type: str) -> bool:
    """Return whether a layer of this type, encrypted or not, holds files of an image."""
    kinds = (OCI_LAYER, OCI_FOREIGN_LAYER, DOCKER_LAYER, DOCKER_FOREIGN_LAYER)
    return media_type.startswith(kinds)


_ATTESTATION: Final = re.compile(
    r"application/vnd\.in-toto([.-][a-z0-9-]+)*\+(json|dsse)"
    r"|application/vnd\.dev\.(cosign|sigstore)([.-][a-z0-9-]+)+\+json"
    r"|application/vnd\.dsse\.envelope\.v1\+json"
    r"|application/(vnd\.cyclonedx|spdx|vnd\.syft|jose)\+json"
    r"|application/(vnd\.cyclonedx\+xml|cose)"
    r"|text/spdx(\+json|\+xml)?"
)


def is_attestation(media_type: str) -> bool:
    """Return whether a layer of this type is a statement about an image, and no reader's layer.

    in-toto's statements as BuildKit and cosign attach them, signatures of cosign, sigstore and
    notation, and lists of contents (SPDX, CycloneDX, Syft); to the letter, for a type that is
    nearly one of them is one that nobody writes.
    """
    return _ATTESTATION.fullmatch(media_type) is not None


def is_soci_index(media_type: str) -> bool:
    """Return whether it is SOCI's index of an image, whose zTOCs hold windows of the plaintext."""
    return media_type.startswith("application/vnd.amazon.soci.index.")


def is_encryptable(media_type: str) -> bool:
    """Return whether somebody opens a layer of this type once it is encrypted.

    ocicrypt would encrypt more, such as ``tar+xz``; no reader has a word for those.
    """
    layer = compressed_as(media_type, NONE) in {OCI_LAYER, OCI_FOREIGN_LAYER}
    return (
        layer and compression_of(media_type) in {NONE, GZIP, ZSTD} and not is_encrypted(media_type)
    )


def compression_of(media_type: str) -> str:
    """Return what stands behind OCI's ``+`` or Docker's dot: ``NONE``, ``GZIP``, ``ZSTD``, another.

    The type may be that of an encrypted layer.
    """
    plain = plain_form(media_type)
    for kind in (DOCKER_LAYER, DOCKER_FOREIGN_LAYER):
        if plain.startswith(f"{kind}."):
            return plain.removeprefix(f"{kind}.")
    return plain.partition("+")[2]


def compressed_as(media_type: str, compression: str) -> str:
    """Return the OCI type of a layer of this one, not encrypted, that is compressed so."""
    kind = media_type.partition("+")[0]
    return f"{kind}+{compression}" if compression else kind


def encrypted_form(media_type: str) -> str:
    """Return the type that a layer of this type has when it is encrypted."""
    return f"{media_type}{ENCRYPTED}"


def plain_form(media_type: str) -> str:
    """Return the type that a layer of this type has when it is decrypted."""
    return media_type.removesuffix(ENCRYPTED)


def oci_equivalent(media_type: str) -> str:
    """Return the OCI type for a Docker one; any other type comes back as it is.

    Raises ``InputError`` for a Docker type that OCI has no word for (a plugin, for example).
    """
    known = _DOCKER_TO_OCI.get(media_type)
    if known is None and media_type.startswith("application/vnd.docker."):
        raise InputError(
            f"the media type {shown(media_type)} has no equivalent in OCI",
            f"known are {', '.join(_DOCKER_TO_OCI)}",
        )
    return known or media_type
