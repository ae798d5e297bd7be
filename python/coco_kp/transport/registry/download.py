"""Downloads: one blob as a stream, which goes on by ``Range`` where it broke."""

from __future__ import annotations

import re

from coco_kp.errors import RemoteError, UnreachableError
from coco_kp.http import Response
from coco_kp.model.manifest import Descriptor
from coco_kp.transport.base import CHUNK, RawBlob
from coco_kp.transport.registry.repository import Repository


class RegistryBlob(RawBlob):
    """A blob that a registry sends, once it is asked for it (:meth:`start`)."""

    def __init__(self, repository: Repository, blob: Descriptor) -> None:
        self._repository = repository
        self._blob = blob
        self._offset = 0
        self._retry = repository.retry
        self._known = 0  # bytes to be read past: the registry began anew
        self._response: Response | None = None

    def start(self, offset: int) -> None:
        """Ask for what comes from ``offset`` on."""
        self._offset = offset
        self._response = self._ask()

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer`` with what has come."""
        while True:
            response = self._response = self._response or self._ask()
            try:
                data = response.read(min(CHUNK, self._known) or len(buffer))
                if not data and (self._known or self._offset < self._blob.size):
                    raise UnreachableError(f"{response.request}: the answer ended early")
            except UnreachableError as broken:
                self._pause(broken)
                continue
            if self._known:
                self._known -= len(data)
                continue
            buffer[: len(data)] = data
            self._offset += len(data)
            self._retry = self._repository.retry
            return len(data)

    def close(self) -> None:
        """Break off the download."""
        response, self._response = self._response, None
        if response:
            response.close()

    def _pause(self, broken: UnreachableError) -> None:
        self.close()
        self._retry = self._retry.after()
        if self._retry.over:
            raise broken
        self._retry.wait(broken.message, self._repository.sleep)

    def _ask(self) -> Response:
        headers = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        response = self._repository.get_blob(self._blob.digest, headers)
        self._known = self._offset if response.status == 200 else 0
        if response.status == 200:
            return response
        if response.status == 206 and self._offset:
            given = response.headers.get("Content-Range", "")
            if not re.match(rf"bytes {self._offset}-", given):
                with response:
                    raise RemoteError(
                        f"{response.request}: asked for bytes from {self._offset} on, "
                        f"got {response.quote(given) or 'others'}"
                    )
            return response
        raise self._repository.refused(response)
