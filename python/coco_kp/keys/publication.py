"""What happens to a KEK once everything else is known to work: it is kept, then registered.

In this order: files, stores, the KBS; the image's name comes last of all. So whatever fails, no
image depends on a key that nobody keeps, and no place holds a key for an image that does not exist,
but where the other side's answer was lost.
"""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import TYPE_CHECKING

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError, NotStoredError, RemoteError, UnrecordedError
from coco_kp.files import UnsyncedError
from coco_kp.keys.file_reference import FileReference, KekReference
from coco_kp.keys.stores.file import FileStore
from coco_kp.keys.stores.interface import Store
from coco_kp.keys.stores.opening import open_store
from coco_kp.model.resource_uri import ResourceUri
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.keys.registrar import KeyRegistrar


@dataclasses.dataclass(slots=True)
class Publication:
    """Where a KEK is to be kept, if it is new, and the KBS that guests fetch it from.

    ``into`` names places that must not have a key yet. What was done is remembered.
    """

    into: tuple[KekReference, ...] = ()
    registrar: KeyRegistrar | None = None
    _kept: list[tuple[KekReference, Store]] = dataclasses.field(default_factory=list, repr=False)
    _done: bool = dataclasses.field(default=False, repr=False)

    def check(self, kid: ResourceUri, kek: Kek) -> None:
        """Raise early what ``publish`` would, as far as that shows without writing anything."""
        for reference in self.into:
            with closing(open_store(reference)) as store:
                if isinstance(store, FileStore):
                    store.check_free()
        if self.registrar:
            self.registrar.check(kid, kek)

    def publish(self, kid: ResourceUri, kek: Kek) -> None:
        """Keep and register. Raises ``CocoKpError``, whose message says what was kept."""
        if self._done:
            return
        asked = False
        try:
            for reference in self.into:
                with closing(open_store(reference)) as store:
                    self._keep(reference, store, kek)
            if self.registrar:
                asked = True
                self.registrar.register(kid, kek)
        except CocoKpError as error:
            # After a failed call nobody knows whether the KBS has done it all the same.
            unknown = isinstance(error, RemoteError) and not isinstance(error, NotStoredError)
            may_have = asked and (unknown or isinstance(error, UnrecordedError))
            raise error.adding(*self._remarks(kbs_may_have=may_have)) from None
        self._done = True

    def _keep(self, reference: KekReference, store: Store, kek: Kek) -> None:
        if all(reference != kept for kept, _ in self._kept):
            try:
                store.keep(kek.raw())
            except UnsyncedError:  # then it is there all the same
                self._kept.append((reference, store))
                raise
            self._kept.append((reference, store))

    def _remarks(self, *, kbs_may_have: bool) -> list[str]:
        """Take files away that nothing can depend on, and say where the new key still is."""
        remarks = []
        for reference, store in list(self._kept):
            if isinstance(store, FileStore) and not kbs_may_have and store.remove():
                self._kept.remove((reference, store))
                remarks.append(f"the new key file {_place(reference)} was removed again")
            else:
                remarks.append(f"the new key is kept in {_place(reference)}")
        return remarks

    def withdraw(self) -> tuple[str, ...]:
        """Remove a new key's file where it is the only place of the key; return what was removed.

        Only for an image that is not there, and never will be.
        """
        if self.registrar or any(not isinstance(store, FileStore) for _, store in self._kept):
            return ()
        removed = []
        for reference, store in list(self._kept):
            if isinstance(store, FileStore) and store.remove():
                self._kept.remove((reference, store))
                removed.append(_place(reference))
        return tuple(removed)

    def kept(self) -> tuple[str, ...]:
        """Return the places in which a new key is kept now."""
        return tuple(_place(reference) for reference, _ in self._kept)


def _place(reference: KekReference) -> str:
    return shown(reference.path if isinstance(reference, FileReference) else str(reference))
