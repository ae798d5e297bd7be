"""The registry of a case: layouts served from memory, with the habits of some real registries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.sim.registry import Registry
from tests.support.documents import Document
from tests.support.layout import entries

REF_NAME: Final = "org.opencontainers.image.ref.name"  # annotations.md of the OCI image spec


@dataclass(frozen=True, kw_only=True)
class RegistrySpec:
    """The member ``registry`` of ``case.json``."""

    repositories: dict[str, str] = field(default_factory=dict)
    """Layouts of the case, by the repositories that serve them."""
    login: str | None = None
    """``user:password``; anybody may read and write without it."""
    challenges: list[str] = field(default_factory=lambda: ['Basic realm="sim"'])
    patch: int = 202
    """The status of a PATCH that succeeded."""
    put_manifest: int = 201
    """The status of a manifest's PUT that succeeded."""

    def load(self, case: Path) -> Registry:
        """Return a registry that holds the layouts under ``case``."""
        registry = Registry(
            challenges=tuple(self.challenges), patched=self.patch, stored=self.put_manifest
        )
        if self.login is not None:
            user, _, password = self.login.partition(":")
            registry.basic = (user, password)
        for repository, layout in self.repositories.items():
            _load(registry, repository, case / layout)
        return registry


def _load(registry: Registry, repository: str, layout: Path) -> None:
    for file in (layout / "blobs").glob("*/*"):
        registry.blobs[repository, f"{file.parent.name}:{file.name}"] = file.read_bytes()
    for entry in _manifests(registry, repository, entries(layout)):
        blob = (entry["mediaType"], registry.blobs[repository, entry["digest"]])
        registry.manifests[repository, entry["digest"]] = blob
        if name := entry.get("annotations", {}).get(REF_NAME):
            registry.manifests[repository, name] = blob


def _manifests(
    registry: Registry, repository: str, descriptors: Iterable[Document]
) -> Iterator[Document]:
    """Yield the descriptors of manifests that are there, and of those that they list."""
    for descriptor in descriptors:
        if blob := registry.blobs.get((repository, descriptor["digest"])):
            yield descriptor
            yield from _manifests(registry, repository, json.loads(blob).get("manifests", []))
