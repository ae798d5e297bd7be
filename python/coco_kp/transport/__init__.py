"""Where images live: layouts, archives, directories and registries behind one interface.

``open_source`` and ``open_sink`` turn an image's name into the thing itself; :mod:`.base` says what
that can do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, RefusedError
from coco_kp.files import is_there
from coco_kp.model.reference import (
    FILE_TRANSPORTS,
    FileReference,
    ImageReference,
    RegistryReference,
)
from coco_kp.redact import shown
from coco_kp.transport.access import Access, Credentials, access_beside, parse_credentials
from coco_kp.transport.base import (
    CHUNK,
    BlobReader,
    BlobWriter,
    Pieces,
    Sink,
    Source,
    read_blob,
)
from coco_kp.values import replace

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session

__all__ = [
    "CHUNK",
    "PLAIN",
    "Access",
    "BlobReader",
    "BlobWriter",
    "Credentials",
    "Pieces",
    "Sink",
    "Source",
    "access_beside",
    "check_destination",
    "check_source",
    "list_repositories",
    "list_tags",
    "open_sink",
    "open_source",
    "parse_credentials",
    "read_blob",
]

# Each kind is imported when an image of it is named: a command has one or two, and urllib3 alone is
# a third of the time that one on a registry takes to start.


def open_source(
    reference: ImageReference, access: Access | None = None, session: Session | None = None
) -> Source:
    """Open an image for reading; ``access`` says how.

    Many images share what a ``session`` keeps: logins, connections, tokens. It must be closed after
    them. Raises ``InputError`` where nothing of that name can be an image, ``RemoteError`` where a
    registry (or skopeo) does not give it.
    """
    if isinstance(reference, RegistryReference):
        from coco_kp.transport.registry.source import RegistrySource  # noqa: PLC0415

        return RegistrySource(reference, access or Access(), session)
    if not isinstance(reference, FileReference):
        from coco_kp.transport.skopeo import SkopeoSource  # noqa: PLC0415

        return SkopeoSource(reference)
    try:
        return _open_files(reference, access)
    except InputError as error:
        with suppress(OSError):  # what cannot be looked at, the error names
            error.hint = error.hint or _other_transport(reference)
        raise


def _open_files(reference: FileReference, access: Access | None) -> Source:
    match reference.transport:
        case "oci":
            from coco_kp.transport.layout import LayoutSource  # noqa: PLC0415

            return LayoutSource(reference)
        case "oci-archive":
            from coco_kp.transport.oci_archive import OciArchiveSource  # noqa: PLC0415

            return OciArchiveSource(reference, access)
        case "dir":
            from coco_kp.transport.directory import DirectorySource  # noqa: PLC0415

            return DirectorySource(reference)
        case "docker-archive":
            from coco_kp.transport.docker_archive import DockerArchiveSource  # noqa: PLC0415

            return DockerArchiveSource(reference, access)
    raise ValueError(reference.transport)


def _other_transport(reference: FileReference) -> str:
    """Return what to do about a place of another transport; empty if there is nothing to say."""
    path = Path(reference.path)
    if not is_there(path):
        if reference.path.startswith("//"):  # as docker:// has them
            meant = replace(reference, path=reference.path[2:])
            return f"slashes are a registry's: did you mean {shown(str(meant))}?"
        return "nothing is there: check the path"
    if path.is_file() and reference.transport == "oci":
        return "it is a file: an archive is named oci-archive:PATH or docker-archive:PATH"
    if path.is_dir() and reference.transport.endswith("-archive"):
        return "it is a directory, not an archive: name it oci:PATH or dir:PATH"
    if (path / "manifest.json").is_file() and reference.transport == "oci":
        return "it is a directory of skopeo's dir transport: name it dir:PATH"
    if (path / "oci-layout").is_file() and reference.transport == "dir":
        return "it is an OCI layout: name it oci:PATH"
    if path.is_file() and reference.transport.endswith("-archive"):
        other = {"oci-archive": "docker-archive", "docker-archive": "oci-archive"}
        return f"if it is an archive of the other kind, name it {other[reference.transport]}:PATH"
    return ""


def check_source(reference: ImageReference) -> None:
    """Raise ``RefusedError`` for an image that the user's policy.json rejects; see ``policy``."""
    if isinstance(reference, RegistryReference):
        from coco_kp.transport.registry.policy import check_policy  # noqa: PLC0415

        check_policy(reference)


def check_destination(reference: ImageReference, *, encrypted: bool = True) -> None:
    """Raise ``RefusedError`` for a place that cannot be written, with an image so; no I/O."""
    places = [
        name for name in (*FILE_TRANSPORTS, *_THROUGH_SKOPEO) if not (encrypted and name in PLAIN)
    ]
    if isinstance(reference, RegistryReference) or reference.transport in places:
        return
    # Docker's formats have no place for the annotations that hold the wrapped keys
    # (docs/protocols.md 1.6: an old skopeo wrote such images, which nobody can open).
    what = "hold an encrypted image" if encrypted else "be written"
    raise RefusedError(
        f"{reference.transport}: cannot {what}",
        f"write to docker://, {', '.join(f'{name}:' for name in places[:-1])} or {places[-1]}:",
    )


def open_sink(
    reference: ImageReference,
    access: Access | None = None,
    session: Session | None = None,
    *,
    keep_replaced: bool = False,
) -> Sink:
    """Open a place for one image; nothing there changes before ``set_reference``.

    ``session`` is as for `open_source`.
    In a layout, blobs to which only a replaced image led go then, unless ``keep_replaced``.
    Raises ``RefusedError`` for a destination that cannot be written, or holds something that would
    be lost; whether it can hold an encrypted image is for `check_destination` to say.
    """
    check_destination(reference, encrypted=False)
    if isinstance(reference, RegistryReference):
        from coco_kp.transport.registry.sink import RegistrySink  # noqa: PLC0415

        return RegistrySink(reference, access or Access(), session)
    if not isinstance(reference, FileReference):
        from coco_kp.transport.skopeo import SkopeoSink  # noqa: PLC0415

        return SkopeoSink(reference)
    match reference.transport:
        case "oci":
            from coco_kp.transport.layout import LayoutSink  # noqa: PLC0415

            return LayoutSink(reference, keep_replaced=keep_replaced)
        case "oci-archive":
            from coco_kp.transport.oci_archive import OciArchiveSink  # noqa: PLC0415

            return OciArchiveSink(reference)
        case "dir":
            from coco_kp.transport.directory import DirectorySink  # noqa: PLC0415

            return DirectorySink(reference)
        case "docker-archive":
            from coco_kp.transport.docker_archive_sink import DockerArchiveSink  # noqa: PLC0415

            return DockerArchiveSink(reference)
    raise ValueError(reference.transport)


def list_tags(
    repository: RegistryReference, access: Access | None = None, session: Session | None = None
) -> Iterator[str]:
    """Yield the tags of a repository in the registry's order; its mirrors are not asked.

    They come page by page: more may be asked for at each step. ``session`` is as for `open_source`.
    Raises ``RemoteError`` where they cannot be listed, or the registry lists an invalid tag.
    """
    from coco_kp.transport.registry.listing import tags  # noqa: PLC0415
    from coco_kp.transport.registry.session import Session, registries  # noqa: PLC0415

    with ExitStack() as stack:
        known = registries(session or stack.enter_context(Session()))
        place = known.configuration.places_to_read(repository, access or Access())[-1]
        yield from tags(known.repository(place.image, place.access, "pull"))


def list_repositories(
    host: str, access: Access | None = None, session: Session | None = None
) -> Iterator[str]:
    """Yield the names of the repositories that the registry ``host`` shows, as `list_tags` does.

    Raises ``RemoteError`` where it has no catalogue, as Docker Hub, or lists an invalid name.
    """
    from coco_kp.transport.registry.listing import repositories  # noqa: PLC0415
    from coco_kp.transport.registry.session import Session, registries  # noqa: PLC0415

    with ExitStack() as stack:
        known = registries(session or stack.enter_context(Session()))
        there = known.configuration.access_to(host, access or Access())
        yield from repositories(known.registry(host, there))


_THROUGH_SKOPEO: Final = ("docker-daemon", "containers-storage")

PLAIN: Final = {"docker-archive", *_THROUGH_SKOPEO}
"""Those that hold one image, no index, and no annotations of layers, where wrapped keys stand."""
