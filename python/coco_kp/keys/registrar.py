"""What registers KEKs, as those see it who have keys registered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from coco_kp.crypto import Kek
    from coco_kp.model.resource_uri import ResourceUri


class KeyRegistrar(Protocol):
    """Registers KEKs with a KBS, from where attested guests fetch them.

    Write a class with these methods around the client of your KBS, and give it to ``KeySettings``.
    The library has none to offer: a KBS takes keys from its admins alone, whose tokens, and the
    record of what they registered, are the command line's.

    Each method raises ``CocoKpError``: ``RefusedError`` where a key that images may depend on would
    be replaced, ``RemoteError`` where the KBS did not confirm.
    """

    def check(self, kid: ResourceUri, kek: Kek, beside: Iterable[ResourceUri] = ()) -> None:
        """Raise what ``register`` would, as far as that shows without asking the KBS.

        ``beside`` are key IDs under which the key is to be registered as well.
        """

    def check_unused(self, kid: ResourceUri) -> None:
        """Raise ``RefusedError`` if some key is known for a key ID, for which one is wanted."""

    def register(self, kid: ResourceUri, kek: Kek) -> None:
        """Register a KEK; a second time does nothing."""
