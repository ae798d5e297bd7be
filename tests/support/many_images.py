"""Many small images that share layers, as teams build them: a base, a repository's own, a tag's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coco_kp.model.reference import RegistryReference
from coco_kp.transport.registry.sink import RegistrySink
from tests.support.access import PLAIN
from tests.support.image import tar
from tests.support.stored import Image, image, store

Fleet = Mapping[tuple[str, str], Image]
"""Images by repository and tag."""

PLAIN_HTTP = ("--src-tls-verify=false", "--dest-tls-verify=false")


def images(repositories: int, tags: int, size: int = 1000) -> Fleet:
    """Return a fleet: each image has the base of all, its repository's layer, and one of its own.

    The same bytes every time; ``size`` is that of each layer's one file.
    """

    def layer(name: str) -> bytes:
        return tar({name: name.encode().ljust(size, b".")})

    return {
        (f"team/app{r}", f"{t}"): image(layer("base"), layer(f"app{r}"), layer(f"app{r}-{t}"))
        for r in range(repositories)
        for t in range(tags)
    }


def push(address: str, fleet: Fleet) -> None:
    """Store all images in a registry."""
    for (repository, tag), stored in fleet.items():
        put(address, repository, tag, stored)


def put(address: str, repository: str, tag: str, stored: Image) -> None:
    """Store one image in a registry."""
    with RegistrySink(RegistryReference(address, repository, tag), PLAIN) as sink:
        store(sink, stored)


@dataclass(frozen=True)
class Results:
    """A file of results."""

    path: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines, in the order in which images ended."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many images came to what."""
        found = [line["outcome"] for line in self.lines]
        return {outcome: found.count(outcome) for outcome in sorted(set(found))}

    def summed(self, what: str) -> int:
        """How many layers of all images were ``encrypted``, ``taken_over`` or left ``readable``."""
        return sum(line["layers"][what] for line in self.lines)
