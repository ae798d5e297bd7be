"""One layer's bytes on their way: sealed, opened, copied or checked, in constant memory.

Each function returns its result, or commits a blob, only after every verdict on the whole layer.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from coco_kp.crypto import LayerOpener, LayerSealer, SealedLayer
from coco_kp.errors import InputError, IntegrityError, RefusedError
from coco_kp.files import reason
from coco_kp.image.compression import (
    ZstdRule,
    compression_of_bytes,
    is_compressed,
    recognised,
)
from coco_kp.image.content import HEAD
from coco_kp.image.diff_id import DiffIdCheck, check_diff_id
from coco_kp.image.passage import LayerInput, Passage
from coco_kp.image.work import Work
from coco_kp.model.digest import Digest, hasher_like, parse_digest
from coco_kp.model.layer_options import PrivateOptions, PublicOptions
from coco_kp.model.manifest import Descriptor
from coco_kp.model.media_type import GZIP, NONE, ZSTD
from coco_kp.redact import shown
from coco_kp.transport import BlobReader, BlobWriter, Pieces, Sink, Source
from coco_kp.unpacking import Decompressor
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.image.plan import LayerPlan

MAX_STATEMENT: Final = 128 * 1024 * 1024
"""Bytes of an attestation's layer at the most; real ones, lists of contents too, have a tenth."""

_SHA256: Final = "sha256"


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A layer that lies encrypted at its destination, and what opens it.

    ``compression`` is that of the bytes that were encrypted; with ``transcoded`` they were
    compressed anew.
    """

    digest: Digest
    size: int
    private_options: PrivateOptions
    public_options: PublicOptions
    compression: str
    transcoded: bool


def seal_layer(
    source: Source,
    sink: Sink,
    plan: LayerPlan,
    work: Work,
    *,
    zstd: ZstdRule = "gzip",
    threads: int = 1,
) -> SealedBlob:
    """Encrypt a layer under a fresh key. Raises ``IntegrityError`` if it is not what it should be.

    How it is compressed is what its first bytes say. The options record the digest of what was
    encrypted: the layer's own, unless it was transcoded. ``threads``, 1 or 2, work on it.
    """
    layer = plan.layer
    sealer = LayerSealer()
    with ExitStack() as stack:
        opened = stack.enter_context(_Looked(_open(source, layer)))
        compression = layer_compression(opened.head, plan, zstd)
        transcoded = compression == ZSTD and zstd == "gzip"
        if transcoded:  # the cipher's pass does not yield this layer's digest
            opened.close()
            given = LayerInput(source, layer, work, threads=threads)
            passage = Passage(sealer, _transcoding(given, plan.diff_id, work))
        else:
            given = LayerInput(
                source, layer, work, verify=_verify(layer), opened=opened, threads=threads
            )
            passage = Passage(sealer, given.pieces)
        writer = stack.enter_context(sink.begin_blob(None if transcoded else layer.size))
        passage.carry(given, writer)
        passage.again = sealed = sealer.finalize()
        if not transcoded:
            _check_digest(layer, sealed.plaintext_sha256)
        digest = Digest(_SHA256, sealed.ciphertext_sha256.hex())
        writer.commit(digest, sealed.size)
    return SealedBlob(
        digest,
        sealed.size,
        _options(sealed, None if transcoded else layer.digest),
        PublicOptions(sealed.hmac),
        GZIP if transcoded else compression,
        transcoded,
    )


def open_layer(
    source: Source,
    layer: Descriptor,
    keys: PrivateOptions,
    public: PublicOptions,
    diff_id: Digest | None,
    sink: Sink | None,
    work: Work,
    *,
    carry: bool = False,
    threads: int = 1,
    head: Head | None = None,
    refusals: list[InputError] | None = None,
) -> Digest:
    """Decrypt a layer into ``sink``, or only check it where that is None; return its plain digest.

    Raises ``IntegrityError`` unless the layer's digest, its HMAC, the plain digest that ``keys``
    record (if any) and ``diff_id`` (if any) agree; then nothing is committed. With ``carry`` a
    recorded digest is proof enough of what went in, whether a guest would take it or not:
    ``diff_id`` counts, and must be there, where none is recorded. ``threads``, 1 or 2, work on it:
    on compressed content one of them only to check it. ``head`` gets the first bytes of the
    plaintext, and ``refusals`` why a guest would refuse the content that has the ``diff_id``.
    """
    recorded = parse_digest(keys.digest) if keys.digest else None
    if carry and recorded is None and diff_id is None:
        raise IntegrityError(
            f"nothing tells what the layer {layer.digest} decrypts to: neither its packet nor the "
            "image's config has a digest",
            "whoever encrypted the image has to do it anew, with coco-kp or skopeo",
        )
    if carry and recorded not in {None, diff_id}:
        diff_id = None
    opener = LayerOpener(key=keys.symkey, nonce=keys.nonce, hmac=public.hmac)
    other = hasher_like(recorded) if recorded and recorded.algorithm != _SHA256 else None
    with ExitStack() as stack:
        writer = stack.enter_context(sink.begin_blob(layer.size) if sink else _Nowhere())
        opened = stack.enter_context(_open(source, layer))
        given = LayerInput(
            source, layer, work, verify=_verify(layer), opened=opened, threads=threads
        )
        content = None
        if diff_id and (
            refusals is not None or is_compressed(layer.media_type) or diff_id.algorithm != _SHA256
        ):
            content = stack.enter_context(_content(layer, diff_id, work, refusals, threads))
        also = [part.update for part in (content, other, head) if part]
        passage = Passage(opener, given.pieces, also)
        passage.carry(given, writer)
        passage.again = ended = opener.finalize()
        _check_digest(layer, ended.ciphertext_sha256)
        sha256 = Digest(_SHA256, ended.plaintext_sha256.hex())
        plain = Digest(recorded.algorithm, other.hexdigest()) if recorded and other else sha256
        # A tool that compresses while it encrypts records the digest from before (1.3).
        if not (carry and recorded == plain):
            if content:
                content.finish()
            elif diff_id:
                check_diff_id(sha256, diff_id)
            if recorded not in {None, plain, diff_id}:
                raise IntegrityError(
                    f"the layer {layer.digest} decrypts to something else than what was encrypted",
                    "the packet does not belong to this layer, or the image was altered",
                )
        writer.commit(plain, ended.size)
    return plain


def copy_layer(
    source: Source, sink: Sink, layer: Descriptor, work: Work, diff_id: Digest | None = None
) -> None:
    """Bring a blob over as it is: nothing if it is there, mounted if it can be, else copied.

    With ``diff_id`` its content is checked in any case. Raises ``IntegrityError``.
    """
    there = sink.has_blob(layer)
    if there or (diff_id is None and sink.mount_blob(layer, source)):
        if diff_id:
            check_layer(source, layer, diff_id, work)
        return
    content = _content(layer, diff_id, work) if diff_id else None
    given = LayerInput(source, layer, work)
    with sink.begin_blob(layer.size) as writer:
        writer.take(Passage(None, given.pieces, [content.update] if content else []).pieces)
        if content:
            content.finish()
        writer.commit(layer.digest, layer.size)


def check_layer(
    source: Source,
    layer: Descriptor,
    diff_id: Digest | None,
    work: Work,
    *,
    threads: int = 1,
    refusals: list[InputError] | None = None,
) -> bytes:
    """Read a layer without a key, and return its first bytes, up to ``HEAD``.

    Raises ``IntegrityError`` if it is not what it should be. ``refusals`` gets why a guest would
    refuse the content that has the ``diff_id``. ``threads``, 1 or 2, work on it.
    """
    head = Head()
    with ExitStack() as stack:
        content = None
        if diff_id:
            content = stack.enter_context(_content(layer, diff_id, work, refusals, threads))
        for piece in LayerInput(source, layer, work).pieces():
            head.update(piece)
            if content:
                content.update(piece)
        if content:
            content.finish()
    return head.data


def recognised_layer(source: Source, layer: Descriptor) -> str | None:
    """Return how a layer is compressed, by its first bytes; None where it is not an archive."""
    with _Looked(source.open_blob(layer, verify=False)) as reader:
        return recognised(reader.head)


def refuse_readable(source: Source, layer: Descriptor) -> None:
    """Raise ``RefusedError`` where what is called encrypted is plainly an archive.

    Ciphertext begins as one with a probability of 2^-24 at the most.
    """
    found = recognised_layer(source, layer)
    if found is not None:
        raise RefusedError(
            f"the layer {layer.digest} is called encrypted, but is plainly {found or 'a tar'}",
            "everybody can read it: encrypt the original",
        )


def check_statement(source: Source, layer: Descriptor, work: Work) -> None:
    """Read a layer of an attestation, which stays readable.

    Raises ``RefusedError`` where it may be a layer of an image: an archive, by its first bytes, or
    longer than any statement.
    """
    if layer.size > MAX_STATEMENT:
        raise RefusedError(
            f"the attestation's layer {layer.digest} has {layer.size} bytes, over {MAX_STATEMENT}",
            _POSES,
        )
    found = recognised(check_layer(source, layer, None, work))
    if found is not None:
        raise RefusedError(
            f"the attestation's layer {layer.digest} is plainly {found or 'a tar'}", _POSES
        )


_POSES: Final = "only a statement about an image can be kept: this may be a layer of one"


class Head:
    """The first bytes, up to ``HEAD``, of a stream that comes in pieces."""

    def __init__(self) -> None:
        self.data = b""

    def update(self, piece: memoryview) -> None:
        """Take the next piece."""
        self.data += piece[: HEAD - len(self.data)]


class _Looked:
    """A blob whose first bytes, ``head``, were looked at, and are read again. A context manager."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self.fd, self.path = reader.fd, reader.path
        self._held = b""
        try:
            self.head = self._look()
        except BaseException:
            reader.close()
            raise

    def readinto(self, buffer: memoryview) -> int:
        """Read into ``buffer``, of ``HEAD`` bytes or more; 0 at the end."""
        if not self._held:
            return self._reader.readinto(buffer)
        count = len(self._held)
        buffer[:count], self._held = self._held, b""
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the blob."""
        self._reader.close()

    def _look(self) -> bytes:
        if self.fd is not None:
            try:
                return os.pread(self.fd, HEAD, 0)
            except OSError as failure:
                path = shown(str(self.path))
                raise InputError(f"cannot read {path}: {reason(failure)}") from None
        while len(self._held) < HEAD and (more := self._reader.read(HEAD - len(self._held))):
            self._held += more
        return self._held


def layer_compression(head: bytes, plan: LayerPlan, zstd: ZstdRule) -> str:
    """Return how a layer is compressed that begins with ``head``, if it may be encrypted so.

    Raises ``IntegrityError``, ``RefusedError``.
    """
    where = f"layer {plan.number}"
    try:
        found = compression_of_bytes(head, plan.media_type)
    except (IntegrityError, RefusedError) as error:
        raise error.within(f"{where} ({plan.layer.digest})") from None
    if found == ZSTD and zstd == "refuse":
        raise RefusedError(
            f"{where} ({plan.layer.digest}) is compressed with zstd, which guests cannot read once "
            "it is encrypted, whatever its media type says",
            "have it compressed anew, as gzip",
            code="zstd-layer",
        )
    return found


def _open(source: Source, layer: Descriptor) -> BlobReader:
    """Open a layer whose SHA-256 the cipher's pass yields anyway."""
    return source.open_blob(layer, verify=_verify(layer))


def _content(
    layer: Descriptor,
    diff_id: Digest,
    work: Work,
    refusals: list[InputError] | None = None,
    threads: int = 1,
) -> DiffIdCheck:
    """Return what checks a layer's content, on a thread of its own where there are two."""
    return DiffIdCheck(
        layer.media_type, diff_id, work.unpacking, refusals=refusals, aside=threads > 1
    )


def _verify(layer: Descriptor) -> bool:
    """Return whether the cipher's pass does not yield a layer's digest."""
    return layer.digest.algorithm != _SHA256


def _transcoding(given: LayerInput, diff_id: Digest | None, work: Work) -> Pieces:
    """Return what gives a zstd layer compressed anew."""

    def pieces(offset: int) -> Iterator[memoryview]:
        for data in _transcoded(given.pieces(), diff_id, work):
            if offset < len(data):
                yield memoryview(bytearray(data[offset:]))
            offset = max(0, offset - len(data))

    return pieces


def _transcoded(
    pieces: Iterator[memoryview], diff_id: Digest | None, work: Work
) -> Iterator[bytes]:
    """Compress a zstd layer anew, with gzip: the same bytes each time, since it carries no time."""
    content = DiffIdCheck(NONE, diff_id, work.unpacking) if diff_id else None
    source = Decompressor(ZSTD, work.unpacking)
    gzip = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in pieces:
        source.feed(piece)
        while data := source.read():
            if content:
                content.update(data)
            yield gzip.compress(data)
    source.finish()
    if content:
        content.finish()
    yield gzip.flush()


def _options(sealed: SealedLayer, digest: Digest | None) -> PrivateOptions:
    plain = Digest(_SHA256, sealed.plaintext_sha256.hex())
    return PrivateOptions(sealed.key, sealed.nonce, str(digest or plain))


def _check_digest(layer: Descriptor, sha256: bytes) -> None:
    if layer.digest.algorithm == _SHA256 and sha256.hex() != layer.digest.hex:
        raise IntegrityError(f"the blob {layer.digest} does not have the content that it names")


class _Nowhere(BlobWriter):
    """Where a layer goes that is only checked."""

    def take(self, pieces: Pieces) -> None:
        """Drop it."""
        for _ in pieces(0):
            pass

    def commit(self, digest: Digest, size: int) -> None:
        """No-op: there is nothing to keep."""

    def abort(self) -> None:
        """No-op: there is nothing to drop."""
