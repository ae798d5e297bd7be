"""One layer's bytes on their way: sealed, opened, copied or checked, in constant memory.

Each function gives its result, or commits a blob, only after every verdict on the whole layer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coco_kp.crypto import LayerOpener, LayerSealer, SealedLayer
from coco_kp.errors import InputError, IntegrityError
from coco_kp.files import reason
from coco_kp.image.content import HEAD
from coco_kp.image.diff_id import (
    DiffIdCheck,
    DiffIdCheckAside,
    check_diff_id,
    decompressor,
    is_compressed,
)
from coco_kp.image.progress import Work
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.layer_options import PrivateOptions, PublicOptions
from coco_kp.model.manifest import Descriptor
from coco_kp.transport import BlobReader, BlobWriter, Sink, Source

if TYPE_CHECKING:
    from coco_kp.image.plan import LayerPlan

BUFFER: Final = 256 * 1024
"""Bytes of a layer that are in memory at once."""

_SHA256: Final = "sha256"


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A layer that lies encrypted at its destination, and what opens it."""

    digest: Digest
    size: int
    private_options: PrivateOptions
    public_options: PublicOptions


def seal_layer(
    source: Source, sink: Sink, plan: LayerPlan, work: Work, *, threads: int = 1
) -> SealedBlob:
    """Encrypt a layer under a fresh key. Raises ``IntegrityError`` if it is not what it should be.

    The options record the digest of what was encrypted: the layer's own, unless it was transcoded.
    Between plain files ``threads``, 1 or 2, work on it.
    """
    layer = plan.layer
    sealer = LayerSealer()
    with (
        sink.begin_blob(None if plan.transcode else layer.size) as writer,
        _open(source, layer, verify=plan.transcode) as reader,
    ):
        if plan.transcode:
            for data in _transcoded(_pieces(reader, layer, work), plan, work):
                writer.write(sealer.update(data))
        else:
            _pass(sealer, reader, writer, layer, work, threads)
        sealed = sealer.finalize()
        if not plan.transcode:
            _check_digest(layer, sealed.plaintext_sha256)
        digest = Digest(_SHA256, sealed.ciphertext_sha256.hex())
        writer.commit(digest, sealed.size)
    return SealedBlob(digest, sealed.size, _options(sealed, plan), PublicOptions(sealed.hmac))


def open_layer(
    source: Source,
    layer: Descriptor,
    keys: PrivateOptions,
    public: PublicOptions,
    diff_id: Digest | None,
    sink: Sink | None,
    work: Work,
    *,
    threads: int = 1,
) -> Digest:
    """Decrypt a layer into ``sink``, or only check it where that is None; give its plain digest.

    Raises ``IntegrityError`` unless the layer's digest, its HMAC, the plain digest that ``keys``
    record (if any) and ``diff_id`` (if any) agree; then nothing is committed. ``threads``, 1 or 2,
    work on it: on compressed content one of them only to check it.
    """
    recorded = parse_digest(keys.digest) if keys.digest else None
    opener = LayerOpener(key=keys.symkey, nonce=keys.nonce, hmac=public.hmac)
    other = recorded.hasher() if recorded and recorded.algorithm != _SHA256 else None
    with ExitStack() as stack:
        writer = stack.enter_context(sink.begin_blob(layer.size) if sink else _Nowhere())
        reader = stack.enter_context(_open(source, layer))
        content: DiffIdCheck | DiffIdCheckAside | None = None
        if diff_id and (is_compressed(layer.media_type) or diff_id.algorithm != _SHA256):
            if threads > 1:
                content = stack.enter_context(
                    DiffIdCheckAside(layer.media_type, diff_id, work.unpacking)
                )
            else:
                content = DiffIdCheck(layer.media_type, diff_id, work.unpacking)
        also = [part.update for part in (content, other) if part]
        _pass(opener, reader, writer, layer, work, threads, also)
        opened = opener.finalize()
        _check_digest(layer, opened.ciphertext_sha256)
        plain = Digest(_SHA256, (opened.plaintext_sha256 or b"").hex())
        if content:
            content.finish()
        elif diff_id:
            check_diff_id(plain, diff_id)
        if recorded and other:
            plain = Digest(recorded.algorithm, other.hexdigest())
        # A tool that compresses while it encrypts records the digest from before (1.3).
        if recorded not in {None, plain, diff_id}:
            raise IntegrityError(
                f"the layer {layer.digest} decrypts to something else than what was encrypted",
                "the packet does not belong to this layer, or the image was altered",
            )
        writer.commit(plain, opened.size)
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
    content = DiffIdCheck(layer.media_type, diff_id, work.unpacking) if diff_id else None
    with sink.begin_blob(layer.size) as writer, source.open_blob(layer) as reader:
        for piece in _pieces(reader, layer, work):
            writer.write(piece)
            if content:
                content.update(piece)
        if content:
            content.finish()
        writer.commit(layer.digest, layer.size)


def check_layer(source: Source, layer: Descriptor, diff_id: Digest | None, work: Work) -> bytes:
    """Read a layer without a key, and return its first bytes, up to ``HEAD``.

    Raises ``IntegrityError`` if it is not what it should be.
    """
    content = DiffIdCheck(layer.media_type, diff_id, work.unpacking) if diff_id else None
    head = bytearray()
    with source.open_blob(layer) as reader:
        for piece in _pieces(reader, layer, work):
            head += piece[: HEAD - len(head)]
            if content:
                content.update(piece)
    if content:
        content.finish()
    return bytes(head)


def _open(source: Source, layer: Descriptor, *, verify: bool = False) -> BlobReader:
    """Open a layer whose SHA-256 the cipher's pass yields anyway."""
    return source.open_blob(layer, verify=verify or layer.digest.algorithm != _SHA256)


def _pass(
    stream: LayerSealer | LayerOpener,
    reader: BlobReader,
    writer: BlobWriter,
    layer: Descriptor,
    work: Work,
    threads: int,
    also: Sequence[Callable[[memoryview], None]] = (),
) -> None:
    """Encrypt or decrypt a layer, and give what is written to ``also``, too.

    From file to file, and where nobody else wants it, outside the interpreter.
    """
    if reader.fd is not None and writer.fd is not None and not also:
        _pump(stream, reader.fd, writer.fd, layer, work, threads)
        return
    for piece in _pieces(reader, layer, work):
        stream.update_into(piece, piece)
        for take in also:
            take(piece)
        writer.write(piece)


def _pump(
    stream: LayerSealer | LayerOpener,
    source: int,
    target: int,
    layer: Descriptor,
    work: Work,
    threads: int,
) -> None:
    try:
        with work.pumping(str(layer.digest), layer.size) as progress:
            count = stream.pump(
                source, target, limit=layer.size, threads=threads, progress=progress
            )
    except OSError as failure:
        verb = "encrypt" if isinstance(stream, LayerSealer) else "decrypt"
        raise InputError(f"cannot {verb} {layer.digest}: {reason(failure)}") from None
    if count != layer.size:
        raise IntegrityError(f"the blob {layer.digest} ends {layer.size - count} bytes early")


def _pieces(reader: BlobReader, layer: Descriptor, work: Work) -> Iterator[memoryview]:
    """Read a layer; each piece may be overwritten in place, and is valid until the next."""
    name = str(layer.digest)
    buffer = memoryview(bytearray(BUFFER))
    work.progress.begin(name, layer.size)
    while count := reader.readinto(buffer):
        work.check()
        yield buffer[:count]
        work.progress.advance(name, count)
    work.progress.end(name)


def _transcoded(pieces: Iterator[memoryview], plan: LayerPlan, work: Work) -> Iterator[bytes]:
    """Compress a layer anew, with gzip: the same bytes each time, since it carries no time."""
    content = DiffIdCheck("", plan.diff_id) if plan.diff_id else None
    source = decompressor(plan.layer.media_type, work.unpacking)
    gzip = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in pieces:
        for data in source.pieces(piece):
            if content:
                content.update(memoryview(data))
            yield gzip.compress(data)
    source.finish()
    if content:
        content.finish()
    yield gzip.flush()


def _options(sealed: SealedLayer, plan: LayerPlan) -> PrivateOptions:
    plain = Digest(_SHA256, (sealed.plaintext_sha256 or b"").hex())
    digest = plain if plan.transcode else plan.layer.digest
    return PrivateOptions(sealed.key, sealed.nonce, str(digest))


def _check_digest(layer: Descriptor, sha256: bytes | None) -> None:
    if layer.digest.algorithm == _SHA256 and (sha256 or b"").hex() != layer.digest.hex:
        raise IntegrityError(f"the blob {layer.digest} does not have the content that it names")


class _Nowhere(BlobWriter):
    """Where a layer goes that is only checked."""

    def write(self, data: object) -> None:
        """Drop it."""

    def commit(self, digest: Digest, size: int) -> None:
        """Keep nothing."""

    def abort(self) -> None:
        """Drop nothing."""
