"""A tag of a repository: what it points to, and how it is moved, whatever becomes of the answer."""

from __future__ import annotations

import logging
from typing import Final

from coco_kp.errors import (
    ChangedError,
    CocoKpError,
    DeniedError,
    IntegrityError,
    RemoteError,
    UnreachableError,
)
from coco_kp.http import NEVER
from coco_kp.http.retry import RETRIED, retry_after
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Manifest
from coco_kp.transport.registry.repository import Repository
from coco_kp.transport.registry.upload import check_digest
from coco_kp.values import dataclass

_LOG: Final = logging.getLogger(__name__)

_SETTLED: Final = 1.0
"""Seconds after which whoever found the old image under a tag has written his own."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """A request that may have been done or not, and the pause in seconds that was asked for."""

    error: RemoteError
    asked: float | None = None


class Tag:
    """The tag ``name`` in the given repository; ``reference`` names the image in messages.

    ``touched`` says whether it may point elsewhere through us.
    """

    def __init__(self, repository: Repository, name: str, reference: str) -> None:
        self.touched = False
        self._repository = repository
        self._name = name
        self._reference = reference

    def move(self, manifest: Manifest, *, replacing: Digest | None) -> None:
        """Let it point to ``manifest``, but only from ``replacing`` on, where that is given.

        Raises ``ChangedError`` where it pointed elsewhere, ``RemoteError`` where it was not moved,
        was moved again by others, or nobody can tell; ``IntegrityError`` where the registry says
        that it has another manifest now.
        """
        if replacing is not None and self._digest() != str(replacing):
            raise ChangedError(self._reference)
        try:
            self._point_to(manifest, replacing)
        except (RemoteError, IntegrityError):
            raise
        except CocoKpError as error:  # such as an answer that leads to where nobody may go
            self.touched = True
            raise self._unsure(error) from None
        if replacing is not None:
            self._check_kept(manifest.digest)

    def _point_to(self, manifest: Manifest, replacing: Digest | None) -> None:
        """Send the manifest until an answer comes, or a look tells that only that was lost."""
        retry = self._repository.retry
        while lost := self._put(manifest):
            retry = retry.after(lost.asked)
            if not retry.over:
                retry.wait(lost.error.message, self._repository.sleep)
            now = self._look(lost, blind=replacing is None)
            if now == str(manifest.digest):
                return
            if now is not None and replacing is not None and now != str(replacing):
                raise self._taken()  # to send it again would undo that
            self.touched = now is None
            if retry.over:
                raise self._unsure(lost.error) if self.touched else lost.error

    def _put(self, manifest: Manifest) -> _Lost | None:
        try:
            response = self._repository.put_manifest(manifest, self._name, retry=NEVER)
        except UnreachableError as broken:
            self.touched = True
            return _Lost(broken)
        if not response.ok:
            asked = retry_after(response.headers)
            error = self._repository.refused(
                response, f"{self._reference} does not take the manifest"
            )
            if response.status in RETRIED:
                self.touched = True
                return _Lost(error, asked)
            raise self._unsure(error) if self.touched else error
        self.touched = True
        try:
            with response:
                check_digest(response, manifest.digest)
        except IntegrityError as wrong:
            raise IntegrityError(f"{self._reference} may be in place: {wrong.message}") from None
        return None

    def _look(self, lost: _Lost, *, blind: bool) -> str | None:
        """Return what it points to, None where ``blind`` is allowed and the right to read lacks."""
        try:
            return self._digest()
        except CocoKpError as error:
            if blind and isinstance(error, DeniedError):
                return None
            raise self._unsure(lost.error) from None

    def _check_kept(self, digest: Digest) -> None:
        """Look again: who looked before we wrote, and wrote after us, undid what we changed."""
        try:
            self._repository.sleep(_SETTLED)
            now = self._digest()
        except CocoKpError as error:
            _LOG.warning("%s is in place, but may have changed since: %s", self._reference, error)
            return
        if now != str(digest):
            raise self._taken()

    def _digest(self) -> str:
        """Return the digest to which it points, empty where it is gone."""
        what = f"{self._reference} cannot be read again"
        return str(self._repository.digest(self._name, what) or "")

    def _unsure(self, error: CocoKpError) -> RemoteError:
        return RemoteError(
            f"{self._reference} may be in place: the registry did not say whether it took the "
            f"manifest, nor what it has now: {error.message}",
            "look which image it is, and run again where it is not yours",
            code="name-unsure",
        )

    def _taken(self) -> RemoteError:
        return RemoteError(
            f"{self._reference} changed meanwhile: another image took the place of this one",
            "run again, unless your change is in it",
            code="changed-meanwhile",
        )
