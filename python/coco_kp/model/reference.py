"""Names of images as skopeo's users write them: ``transport:reference``.

Grammars: skopeo's containers-transports(5); repository, tag and digest of distribution's
``reference`` package; names inside an OCI layout of image-spec annotations.md
(``org.opencontainers.image.ref.name``).
"""

from __future__ import annotations

import re
from typing import Final

from coco_kp.errors import InputError
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.redact import shown
from coco_kp.values import dataclass

FILE_TRANSPORTS: Final = ("oci", "oci-archive", "dir", "docker-archive")
SKOPEO_TRANSPORTS: Final = ("containers-storage", "docker-daemon", "ostree", "sif", "tarball")
"""Read through a skopeo that is present."""

DOCKER_HUB: Final = "docker.io"

# As text: re compiles what the first image of its kind needs.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = f"{_COMPONENT}(?:/{_COMPONENT})*"
_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
)
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_WORD = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = f"{_WORD}(?:/{_WORD})*"
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """``docker://host/repository[:tag][@digest]``, with Docker Hub's short names written out.

    ``tag`` is ``latest`` where neither was written, and None beside a digest, which alone decides.
    """

    host: str
    repository: str
    tag: str | None
    digest: Digest | None = None

    def __str__(self) -> str:
        """Return the image as a user may write it again."""
        suffix = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"docker://{self.host}/{self.repository}{suffix}"


@dataclass(frozen=True, slots=True)
class FileReference:
    """``oci:path[:name|:@position]``, ``oci-archive:…``, ``docker-archive:…``, or ``dir:path``.

    ``name`` is the image's name in there, or ``position`` its place, from 0; both are None for the
    only one.
    """

    transport: str
    path: str
    name: str | None = None
    position: int | None = None

    def __str__(self) -> str:
        """Return the image as a user may write it again."""
        where = f"@{self.position}" if self.position is not None else self.name
        return f"{self.transport}:{self.path}" + (f":{where}" if where else "")


@dataclass(frozen=True, slots=True)
class SkopeoReference:
    """An image that only skopeo can read; ``text`` is for skopeo, and starts with the transport."""

    transport: str
    text: str

    def __str__(self) -> str:
        """Return the image as a user may write it again."""
        return self.text


ImageReference = RegistryReference | FileReference | SkopeoReference


def parse_image_reference(text: str) -> ImageReference:
    """Read an image's name. Raises ``InputError`` with the accepted forms."""
    if "\0" in text:
        raise InputError(f"{shown(text)} has a zero byte, which no image name has")
    transport, colon, rest = text.partition(":")
    if colon and transport == "docker":
        return _parse_docker(text, rest)
    if colon and transport in FILE_TRANSPORTS:
        return _parse_file(text, transport, rest)
    if colon and transport in SKOPEO_TRANSPORTS:
        return SkopeoReference(transport, text)
    others = ", ".join(f"{name}:" for name in (*FILE_TRANSPORTS, *SKOPEO_TRANSPORTS))
    raise InputError(
        f"{shown(text)} does not start with a transport",
        f"did you mean {_meant(text)}? an image in a registry is "
        f"docker://host/repository:tag; others start with {others}",
    )


def _meant(text: str) -> str:
    """Return what a text that does not start with a transport most likely stands for, quoted."""
    if ":" in text:
        return shown(_meant_by(*text.split(":", 1)), text)
    directory = f"{shown(f'oci:{text}', text)} in a directory"
    if text[:1] in "./":
        return directory
    return f"{shown(f'docker://{text}', text)} in a registry, or {directory}"


def _meant_by(transport: str, rest: str) -> str:
    if rest.startswith("//"):  # https://host/repository
        return f"docker:{rest}"
    from difflib import get_close_matches  # noqa: PLC0415 (where something is wrong)

    known = ("docker", *FILE_TRANSPORTS, *SKOPEO_TRANSPORTS)
    like = get_close_matches(transport, known, 1)
    if not like:  # nginx:1.27
        return f"docker://{transport}:{rest}"
    return f"{like[0]}:{'//' if like[0] == 'docker' else ''}{rest}"


def parse_repository_reference(text: str) -> RegistryReference:
    """Read ``[host/]repository[:tag][@digest]`` without a transport, as ``docker pull`` takes it.

    Raises ``InputError``.
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, tag_colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    if tag_colon and not re.fullmatch(_TAG, tag):
        raise InputError(f"{shown(text)} has an invalid tag", "up to 128 of A-Z a-z 0-9 _ . -")
    host, repository = _split_host(name)
    if not re.fullmatch(_HOST, host):
        raise InputError(f"{shown(text)} has an invalid registry host")
    if not re.fullmatch(_REPOSITORY, repository) or len(name) > _MAX_NAME:
        raise InputError(
            f"{shown(text)} has an invalid repository name",
            "lower-case letters and digits, joined by / . _ __ or -",
        )
    if at:
        return RegistryReference(host, repository, None, parse_digest(digest))
    return RegistryReference(host, repository, tag or "latest")


def is_repository(name: str) -> bool:
    """Return whether a repository of a registry can have that name."""
    return bool(re.fullmatch(_REPOSITORY, name)) and len(name) <= _MAX_NAME


def is_tag(name: str) -> bool:
    """Return whether an image of a repository can have that tag."""
    return bool(re.fullmatch(_TAG, name))


def _parse_docker(text: str, rest: str) -> RegistryReference:
    name = rest.strip("/")
    if not rest.startswith("//"):
        raise InputError(
            f"{shown(text)} lacks the slashes",
            f"did you mean {shown(f'docker://{name}', text)}?",
        )
    if _is_host(name):
        raise InputError(
            f"{shown(text)} names a registry, but no repository",
            f"write {shown(f'docker://{name}/repository:tag', text)}",
        )
    return parse_repository_reference(rest[2:])


def _is_host(text: str) -> bool:
    """Return whether a name is that of a registry: of Docker Hub's own images none has a dot."""
    name = text.partition("@")[0].partition(":")[0]
    return "/" not in text and ("." in name or name == "localhost" or text.startswith("["))


def _split_host(name: str) -> tuple[str, str]:
    """Split the registry host from the repository as Docker does."""
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        host, repository = DOCKER_HUB, name
    else:
        host, repository = first, rest
    if host == f"index.{DOCKER_HUB}":
        host = DOCKER_HUB
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository


def _parse_file(text: str, transport: str, rest: str) -> FileReference:
    path, name = rest, ""
    if transport != "dir":
        path, _, name = rest.partition(":")
    if not path:
        raise InputError(f"{shown(text)} names no path")
    if name.startswith("@"):
        return FileReference(transport, path, position=_position(text, name))
    if name and transport == "docker-archive":
        _check_archive_name(text, name)
    elif name and not re.fullmatch(_REF_NAME, name):
        raise InputError(
            f"{shown(text)} has an invalid image name",
            "letters and digits, joined by single - . _ : @ + or /",
        )
    return FileReference(transport, path, name or None)


def _position(text: str, name: str) -> int:
    if not re.fullmatch(r"@[0-9]{1,9}", name):
        raise InputError(
            f"{shown(text)} has an invalid image name", "':@N' is the Nth image, from 0"
        )
    return int(name[1:])


def _check_archive_name(text: str, name: str) -> None:
    if parse_repository_reference(name).tag is None:
        raise InputError(f"{shown(text)} has a digest", "an archive knows its images by tag")
