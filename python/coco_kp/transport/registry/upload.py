"""Uploads: one blob on its way to a registry (distribution-spec, pushing a blob), in named states.

An upload that breaks goes on from the offset that the registry reports. What is missing is not kept
here: who gave it makes it again (:data:`coco_kp.transport.Pieces`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import ClassVar, Final, cast
from urllib.parse import urlencode

from coco_kp.deadline import undoing
from coco_kp.errors import CocoKpError, DeniedError, IntegrityError, RemoteError, UnreachableError
from coco_kp.http import NEVER, Response, Retry
from coco_kp.http.retry import LONGEST_PAUSE, RETRIED, retry_after
from coco_kp.model.digest import Digest
from coco_kp.transport.base import CHUNK, BlobWriter, Pieces
from coco_kp.transport.registry.outgoing import Outgoing
from coco_kp.transport.registry.repository import Repository
from coco_kp.values import dataclass

SMALL: Final = CHUNK
"""Bytes of a blob, at the most, that is held until its digest is known, and sent whole: that takes
two requests instead of three, and one buffer."""

_BROKEN: Final = RETRIED | {401, 404, 416}
"""Answers to a PATCH after which there may be something to go on with: the registry is busy, our
token expired on the way, the upload is lost, or it has another offset than we thought."""

_FORGETTING: Final = 10.0  # seconds for a registry to forget an upload

_FIRST_PIECE: Final = 256 * 1024
"""Bytes of a PATCH after two that broke and left nothing; each further one makes it smaller."""

_LEAST_PIECE: Final = 16 * 1024
"""Bytes below which it gets no smaller, nor below what the registry takes
(``OCI-Chunk-Min-Length``)."""

_MOST_PIECE: Final = 16 * 1024 * 1024
"""Bytes of a PATCH that are held in memory, whatever a registry asks for."""


class State(Enum):
    """Where an upload stands; each names its request, and to which states the answer leads."""

    NEW = "nothing was given yet: HELD where it is small, else STARTING"
    HELD = "all of it is in memory: STARTING once its digest is known"
    STARTING = "POST, for an upload: SENDING, or NAMING what is held"
    SENDING = "PATCH, of what the registry lacks: SENDING, SENT, or BROKEN"
    BROKEN = "GET, of what the registry has: SENDING, SENT, or STARTING where it lost that"
    SENT = "the registry has all: NAMING once its digest is known"
    NAMING = "PUT, of the digest: KEPT, NAMING again, or STARTING where the registry lost it"
    KEPT = "the registry has it by its digest"
    DROPPED = "nobody wants it any more"


@dataclass(frozen=True, slots=True)
class _Break:
    """What broke a request, and the pause in seconds that the registry asked for."""

    error: RemoteError
    asked: float | None = None


class _Way:
    """How far a blob came, how much goes into a PATCH (0: all), and how many breaks that may take.

    Several in a row without progress end it; ``broke`` says whether there was any.
    """

    def __init__(self, fresh: Retry) -> None:
        self.offset = 0
        self.piece = 0
        self.broke = False
        self.retry = fresh
        self._fresh = fresh
        self._reached = 0

    def go_on(self, offset: int) -> None:
        """Go on from ``offset``; farther than ever before is progress."""
        self.offset = offset
        if offset > self._reached:
            self._reached, self.retry = offset, self._fresh

    def lasts(self, offset: int) -> bool:
        """Return whether to go on from ``offset`` after a break."""
        return offset > self._reached or not self.retry.over


class RegistryBlobWriter(BlobWriter):
    """A blob on its way to a registry; ``keep`` is called with its digest once it is there.

    ``size`` (bytes) is what the blob will have, or None: then it is sent in HTTP chunks.
    """

    def __init__(
        self, repository: Repository, size: int | None, keep: Callable[[Digest], None]
    ) -> None:
        self._repository = repository
        self._size = size
        self._keep = keep
        self._state = State.NEW
        self._blob = Outgoing(lambda _: iter(()))
        self._held: bytes | None = None
        self._way = _Way(repository.retry)
        self._break: _Break | None = None
        self._location = ""
        self._least = _LEAST_PIECE
        self._digest: Digest | None = None
        self._naming = repository.retry

    def take(self, pieces: Pieces) -> None:
        """Send it; hold what is small."""
        if self._state is not State.NEW:
            raise ValueError("the blob is finished")
        self._blob = Outgoing(pieces)
        if self._size is not None and self._size <= SMALL:
            self._held = self._blob.joined(0)
            self._state = State.HELD
            return
        self._state = State.STARTING
        self._advance(State.SENT)

    def commit(self, digest: Digest, size: int) -> None:
        """Let the registry check and name it."""
        if self._state not in (State.HELD, State.SENT):
            raise ValueError("the blob was not taken, or is finished")
        with self:
            found = self._blob.furthest
            if found != size or self._size not in (None, size):
                raise IntegrityError(f"the blob {digest} has {found} bytes, expected {size}")
            self._digest = digest
            self._advance(State.KEPT)
        self._keep(digest)

    def abort(self) -> None:
        """Let the registry forget what it got."""
        if self._state in (State.KEPT, State.DROPPED):
            return
        self._state = State.DROPPED
        self._forget()

    def _advance(self, end: State) -> None:
        while self._state is not end:
            self._state = self._STEPS[self._state](self)

    def _start(self) -> State:
        with self._telling_break():
            response = self._repository.request(
                "POST", self._repository.url("blobs/uploads/"), body=b""
            )
            if not response.ok:
                raise self._repository.refused(response)
        with response:
            self._location = response.location
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            if re.fullmatch(r"[0-9]{1,9}", least):
                self._least = max(_LEAST_PIECE, min(int(least), _MOST_PIECE))
        self._way.go_on(0)
        return State.SENDING if self._held is None else State.NAMING

    def _send(self) -> State:
        self._break = self._send_piece() if self._way.piece else self._send_rest()
        if self._break:
            return State.BROKEN
        self._way.go_on(self._blob.position)
        return State.SENT if self._blob.ended else State.SENDING

    def _recover(self) -> State:
        way, broken = self._way, cast("_Break", self._break)
        way.broke = True
        way.retry = way.retry.after(broken.asked)
        if (way.piece or way.retry.failures > 1) and isinstance(broken.error, UnreachableError):
            # Distribution loses an upload of which a request broke: let a piece arrive.
            way.piece = max(way.piece // 4 if way.piece else _FIRST_PIECE, self._least)
        if way.retry.pause > LONGEST_PAUSE:
            raise broken.error
        if not way.retry.over:
            way.retry.wait(broken.error.message, self._repository.sleep)
        with self._telling_break():
            there = self._reported()
        if there and self._blob.ends_at(there):
            return State.SENT  # only the answer was lost
        if not way.lasts(there):
            raise broken.error
        way.go_on(there)
        return State.SENDING if there else State.STARTING

    def _name(self) -> State:
        digest = cast("Digest", self._digest)
        separator = "&" if "?" in self._location else "?"
        url = f"{self._location}{separator}{urlencode({'digest': str(digest)})}"
        headers = {"Content-Type": "application/octet-stream"} if self._held else {}
        following = State.NAMING
        try:
            response = self._repository.request(
                "PUT", url, headers=headers, body=self._held or b"", retry=NEVER
            )
        except UnreachableError as exc:
            broken = _Break(exc)
            with contextlib.suppress(RemoteError):  # the PUT is repeated, and its failure is told
                if self._repository.has_blob(digest):
                    return State.KEPT  # only the answer was lost
        else:
            if response.ok:
                with response:
                    check_digest(response, digest)
                return State.KEPT
            broken = _Break(self._repository.refused(response), retry_after(response.headers))
            if response.status in (404, 416) or (response.status == 400 and self._way.broke):
                following = State.STARTING  # the registry lost what it got, or mixed it up
            elif response.status not in RETRIED:
                raise broken.error
        self._naming = self._naming.after(broken.asked)
        if self._naming.over:
            raise broken.error
        self._naming.wait(broken.error.message, self._repository.sleep)
        if self._held is not None:
            self._forget()
            following = State.STARTING  # nobody knows how much of it came
        if following is State.STARTING:
            self._held, self._way, self._break = None, _Way(self._repository.retry), broken
        return following

    @contextlib.contextmanager
    def _telling_break(self) -> Iterator[None]:
        """Raise what broke first, where a request fails that is to go on after it.

        A denial stays one: no repeat helps, whatever broke.
        """
        try:
            yield
        except DeniedError as error:
            raise error.within(self._break.error.message) if self._break else error from None
        except RemoteError as error:
            if self._break is None:
                raise
            raise self._break.error.adding(error.message) from None

    def _send_rest(self) -> _Break | None:
        """Send all that the registry lacks; return what broke it, if going on may help."""
        offset, headers = self._way.offset, {}
        if self._size is not None:
            headers["Content-Length"] = str(self._size - offset)
            if offset:
                headers["Content-Range"] = f"{offset}-{self._size - 1}"
        return self._patch(headers, lambda: self._blob.pieces(offset))

    def _send_piece(self) -> _Break | None:
        """Send a piece of it, as :meth:`_send_rest`."""
        offset = self._way.offset
        piece = self._blob.joined(offset, self._way.piece)
        if not piece:
            return None
        headers = {
            "Content-Length": str(len(piece)),
            "Content-Range": f"{offset}-{offset + len(piece) - 1}",
            "Connection": "close",  # so that each has all that a connection lasts
        }
        return self._patch(headers, lambda: iter([piece]))

    def _patch(
        self, headers: dict[str, str], body: Callable[[], Iterator[bytes | memoryview]]
    ) -> _Break | None:
        headers["Content-Type"] = "application/octet-stream"
        try:
            response = self._repository.request("PATCH", self._location, headers=headers, body=body)
        except UnreachableError as error:
            if error is self._blob.failure:
                raise
            return _Break(error)
        if response.status in _BROKEN:
            asked = retry_after(response.headers)
            return _Break(self._repository.refused(response), asked)
        if not response.ok:
            raise self._repository.refused(response)
        with response:
            self._follow(response)
            reached, sent = _end_of_range(response), self._blob.position
            if reached is not None and reached != sent and sent > 1:
                return _Break(
                    RemoteError(f"{response.request}: the registry has {reached} of {sent} bytes")
                )
        return None

    def _reported(self) -> int:
        """Return how much the registry says it has; 0 where that is not what was sent to it."""
        with self._repository.request("GET", self._location) as response:
            offset = _end_of_range(response)
            # ``0-0`` may stand for none or one.
            if response.ok and offset is not None and 1 < offset <= self._blob.furthest:
                self._follow(response)
                return offset
        return 0

    def _follow(self, response: Response) -> None:
        if "Location" in response.headers:
            self._location = response.location

    def _forget(self) -> None:
        if self._location:
            with contextlib.suppress(CocoKpError), undoing(_FORGETTING):
                self._repository.cancel_upload(self._location)

    _STEPS: ClassVar[Mapping[State, Callable[[RegistryBlobWriter], State]]] = {
        State.HELD: lambda _: State.STARTING,
        State.STARTING: _start,
        State.SENDING: _send,
        State.BROKEN: _recover,
        State.SENT: lambda _: State.NAMING,
        State.NAMING: _name,
    }


def check_digest(response: Response, digest: Digest) -> None:
    """Compare the digest that a registry gives for what it sent or got with ours."""
    stated = response.headers.get("Docker-Content-Digest", "")
    if stated.startswith(f"{digest.algorithm}:") and stated != str(digest):
        raise IntegrityError(
            f"{response.request}: expected {digest}, the registry says {response.quote(stated)}"
        )


def _end_of_range(response: Response) -> int | None:
    """Count the bytes that ``Range: 0-<last>`` reports; ``0-0`` may stand for none or one."""
    found = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", response.headers.get("Range", ""))
    return int(found[1]) + 1 if found else None
