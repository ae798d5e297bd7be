"""All that the tests take from package registries, each source with what it costs to have it."""

from __future__ import annotations

from typing import Final, Protocol

from .debian import CHROMIUM, CONTAINERD, CONTAINERD_2, PROMETHEUS, SID, SOFTHSM, TRIXIE
from .golang import (
    ACTIONLINT,
    CIMAGE_CLIENT,
    CRANE,
    DISTRIBUTION,
    KUBECTL_VALIDATE,
    KUBERNETES_OBJECTS,
    KUSTOMIZE,
    LOCAL_KMS,
)
from .pypi import MOTO


class Source(Protocol):
    """A peer, or several that come together."""

    @property
    def name(self) -> str:
        """What `make peers` calls it."""

    @property
    def effort(self) -> str:
        """What is done to have it, and how long that may take."""

    @property
    def cached(self) -> bool:
        """Whether it was had already."""

    @property
    def title(self) -> str:
        """What was had, with versions."""

    def have(self) -> object:
        """Fetch or build it where it is not cached. Raises `PeerUnavailableError`."""


SOURCES: Final[tuple[Source, ...]] = (
    *(TRIXIE, SID, SOFTHSM, PROMETHEUS, CHROMIUM, CONTAINERD, CONTAINERD_2),
    *(CIMAGE_CLIENT, CRANE, ACTIONLINT, LOCAL_KMS),
    *(KUSTOMIZE, KUBERNETES_OBJECTS),
    MOTO,
)

ON_REQUEST: Final[tuple[Source, ...]] = (DISTRIBUTION, KUBECTL_VALIDATE)
"""Those that take too long to be had unasked; the tests go without them, and say so."""
