"""Which images are meant: repositories, globs of tags, registries' catalogues, files of those."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, NotThereError
from coco_kp.files import reason
from coco_kp.fleet.hosts import check_one_registry
from coco_kp.model.reference import (
    RegistryReference,
    parse_image_reference,
    parse_repository_reference,
)
from coco_kp.redact import shown
from coco_kp.transport import Access, list_repositories, list_tags

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session

_ABOUT_ANOTHER: Final = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.[a-z]+)?")
"""Tags of cosign (``.sig``, ``.att``, ``.sbom``), and of referrers where a registry has no API for
them (OCI distribution-spec, "Referrers Tag Schema"): what they name is about another image."""

_GLOB: Final = set("*?[")
_DOCKER: Final = "docker:"
_MAX_WORD: Final = 4096


@dataclasses.dataclass(slots=True)
class Sources:
    """Finds the images that words mean.

    ``left_out`` counts tags that are about other images, ``empty`` repositories of catalogues whose
    tags are gone.
    """

    access: Access
    session: Session
    left_out: int = dataclasses.field(default=0, init=False)
    empty: int = dataclasses.field(default=0, init=False)
    _hosts: set[str] = dataclasses.field(default_factory=set, init=False)

    def images(self, words: Iterable[str]) -> Iterator[RegistryReference]:
        """Yield each image that a word means, once.

        ``docker://host/repository`` means all tags, ``docker://host/repository:1.*`` those that
        match, ``docker://host`` all repositories of its catalogue; another word is a file of such
        words, a line each, and ``-`` is stdin. Raises ``InputError``, ``RemoteError``.
        """
        seen: set[RegistryReference] = set()
        for word in words:
            for image in self._images(word):
                if image not in seen:
                    seen.add(image)
                    yield image

    def _images(self, word: str) -> Iterator[RegistryReference]:
        if word.startswith(_DOCKER):
            yield from self._of_registry(word)
            return
        with _opened(word) as lines:
            for line in lines:
                text = line.strip()
                if len(line) > _MAX_WORD:
                    raise InputError(f"{shown(word)} has a line of more than {_MAX_WORD} letters")
                if not text or text.startswith("#"):
                    continue
                if not text.startswith(_DOCKER):
                    raise InputError(
                        f"{shown(word)} has the line {shown(text)}, which names no image",
                        "write docker://host/repository[:tag], one to a line",
                    )
                yield from self._of_registry(text)

    def _of_registry(self, word: str) -> Iterator[RegistryReference]:
        name = word.removeprefix("docker://")
        if host := _host(name):
            self._check(host)
            for name in list_repositories(host, self.access, self.session):
                yield from self._listed(parse_repository_reference(f"{host}/{name}"))
            return
        head, slash, last = name.rpartition("/")
        last, colon, tag = last.partition(":")
        if "@" in name or (colon and not _GLOB & set(tag)):
            image = _registry_reference(word)
            self._check(image.host)
            yield image
            return
        repository = _registry_reference(f"docker://{head}{slash}{last}")
        self._check(repository.host)
        yield from self._tagged(repository, tag if colon else "*")

    def _check(self, host: str) -> None:
        self._hosts.add(host)
        check_one_registry(self._hosts, self.access)

    def _listed(self, repository: RegistryReference) -> Iterator[RegistryReference]:
        """Yield all images of a repository that a catalogue has: some keep those that are empty."""
        found = self._tagged(repository, "*")
        try:
            first = next(found, None)
        except NotThereError:
            self.empty += 1
            return
        if first:
            yield first
            yield from found

    def _tagged(self, repository: RegistryReference, glob: str) -> Iterator[RegistryReference]:
        for tag in list_tags(repository, self.access, self.session):
            if not fnmatchcase(tag, glob):
                continue
            if _ABOUT_ANOTHER.fullmatch(tag):
                self.left_out += 1
            else:
                yield RegistryReference(repository.host, repository.repository, tag)


def _host(name: str) -> str:
    """Return the registry that a word without a repository names, or nothing."""
    host = name.removesuffix("/")
    word = host.partition(":")[0]  # of Docker Hub's own images none has a dot
    known = "." in word or word == "localhost" or host.startswith("[")
    return host if known and "/" not in host and "@" not in host else ""


def _registry_reference(word: str) -> RegistryReference:
    reference = parse_image_reference(word)
    assert isinstance(reference, RegistryReference)  # noqa: S101 (it begins with docker:)
    return reference


@contextmanager
def _opened(word: str) -> Iterator[Iterable[str]]:
    """Open a file of words; ``-`` is stdin."""
    if word == "-":
        yield _lines(sys.stdin.readline)
        return
    try:
        with Path(word).open(encoding="utf-8", errors="replace") as file:
            yield _lines(file.readline)
    except OSError as failure:
        raise InputError(
            f"cannot read {shown(word)}: {reason(failure)}",
            "an image in a registry is docker://host/repository[:tag]",
        ) from None


def _lines(read: Callable[[int], str]) -> Iterator[str]:
    while line := read(_MAX_WORD + 1):
        yield line
