"""The recipient whose KEK is kept and registered once the image is known to be good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coco_kp.keys.wrapper import KekRecipient
from coco_kp.values import dataclass, field

if TYPE_CHECKING:
    from coco_kp.keys.publication import Publication
    from coco_kp.keys.registrar import KeyRegistrar


@dataclass(frozen=True, slots=True)
class PublishedRecipient(KekRecipient):
    """The holder of a KEK that goes where ``publication`` says."""

    publication: Publication = field(kw_only=True)

    @property
    def registrar(self) -> KeyRegistrar | None:
        """What registers the KEK, if anything does."""
        return self.publication.registrar

    @property
    def kept(self) -> tuple[str, ...]:
        """The places where the KEK is kept now, if it is new."""
        return self.publication.kept()

    def publish(self) -> None:
        """Keep and register the KEK as its publication says."""
        self.publication.publish(self.kid, self.kek)
