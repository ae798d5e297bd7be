"""Downloads: one blob as a stream, which goes on by ``Range`` where it broke."""

from __future__ import annotations

import re

from coco_kp.errors import RemoteError, UnreachableError
from coco_kp.http import Response
from coco_kp.model.manifest import Descriptor
from coco_kp.transport.base import CHUNK, RawBlob
from coco_kp.transport.registry.client import RegistryClient
from coco_kp.transport.registry.refusal import ATTEMPTS


class RegistryBlob(RawBlob):
    """A blob that a registry sends."""

    def __init__(self, client: RegistryClient, blob: Descriptor) -> None:
        self._client = client
        self._blob = blob
        self._offset = 0
        self._failures = 0
        self._response = self._open()

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer`` with what has come."""
        while True:
            try:
                data = self._response.read(len(buffer))
                if not data and self._offset < self._blob.size:
                    raise UnreachableError(f"{self._response.request}: the answer ended early")
            except UnreachableError as broken:
                self._resume(broken)
                continue
            buffer[: len(data)] = data
            self._offset += len(data)
            self._failures = 0
            return len(data)

    def close(self) -> None:
        """Break off the download."""
        self._response.close()

    def _resume(self, broken: UnreachableError) -> None:
        self.close()
        self._failures += 1
        if self._failures == ATTEMPTS:
            raise broken
        self._client.pause(self._failures)
        self._response = self._open()

    def _open(self) -> Response:
        headers = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        response = self._client.get(f"blobs/{self._blob.digest}", headers)
        if response.status == 200:
            self._skip(response, self._offset)
        elif response.status == 206 and self._offset:
            given = response.headers.get("Content-Range", "")
            if not re.match(rf"bytes {self._offset}-", given):
                with response:
                    raise RemoteError(
                        f"{response.request}: asked for bytes from {self._offset} on, "
                        f"got {response.quote(given) or 'others'}"
                    )
        else:
            raise self._client.refused(response)
        return response

    def _skip(self, response: Response, count: int) -> None:
        """Read past what is known already: the registry starts again from the beginning."""
        while count:
            data = response.read(min(CHUNK, count))
            if not data:
                raise UnreachableError(f"{response.request}: the answer ended early")
            count -= len(data)
