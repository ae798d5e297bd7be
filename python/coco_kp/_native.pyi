# ruff: noqa: PYI021 - the native module has no Python source: this is where it is documented
"""The native core (Rust): layers, their content and their keys as bytes, nothing else.

A layer's cipher is ocicrypt's AES_256_CTR_HMAC_SHA256 (docs/protocols.md 1.4), a key is wrapped as
docs/protocols.md 3.2 says. All keys, nonces, IVs, HMACs and digests are raw bytes.

Buffers are any C-contiguous object with the buffer protocol; of what type its items are does not
matter. From 64 KiB on the work is done without the interpreter lock. Nobody may write to a buffer
meanwhile, neither another thread nor, to a shared mapping, another process: what comes out is then
undefined, and the verdict is of no worth.

Rust wipes the keys that it holds as soon as they are no longer needed. It cannot wipe the ``bytes``
objects that Python holds: those live in ordinary memory until the interpreter reuses it.
"""

from typing import Final, final

from _typeshed import FileDescriptorLike, ReadableBuffer, WriteableBuffer

from coco_kp.errors import InputError

__all__ = [
    "CHUNK",
    "ContentCheck",
    "Decompressor",
    "Kek",
    "LayerOpener",
    "LayerSealer",
    "OpenedLayer",
    "Progress",
    "SealedLayer",
    "Unpacking",
    "kernel",
]

CHUNK: Final[int]
"""Bytes of a layer that are made again at a time: 1 MiB."""

@final
class SealedLayer:
    """What sealing a layer yields. Its repr shows no key."""

    @property
    def key(self) -> bytes:
        """The layer's key (LEK), 32 bytes."""
    @property
    def nonce(self) -> bytes:
        """The first counter block, 16 bytes. Secret like the key."""
    @property
    def hmac(self) -> bytes:
        """HMAC-SHA256 of the ciphertext, 32 bytes."""
    @property
    def plaintext_sha256(self) -> bytes:
        """SHA-256 of the plaintext, 32 bytes."""
    @property
    def ciphertext_sha256(self) -> bytes:
        """SHA-256 of the ciphertext, 32 bytes: the encrypted layer's name."""
    @property
    def size(self) -> int:
        """Bytes, the same on both sides."""
    def repeat(self, number: int, data: WriteableBuffer) -> None:
        """Make chunk ``number`` (from 0) of what came out once more, in place of what went in.

        A chunk has ``CHUNK`` bytes, the last one up to that. No key stream may meet two inputs:
        raises ``IntegrityError``, and leaves ``data`` as it is, unless it is what was there before.
        Raises ``InputError`` for a chunk that there is not, or where ``pump`` carried the layer.
        """

@final
class OpenedLayer:
    """What opening a layer yields, once its HMAC has verified."""

    @property
    def plaintext_sha256(self) -> bytes:
        """SHA-256 of the plaintext, 32 bytes."""
    @property
    def ciphertext_sha256(self) -> bytes:
        """SHA-256 of the ciphertext, 32 bytes."""
    @property
    def size(self) -> int:
        """Bytes, the same on both sides."""
    def repeat(self, number: int, data: WriteableBuffer) -> None:
        """Make a chunk once more, as ``SealedLayer.repeat``."""

@final
class Progress:
    """How far a pump is, and the way to end it. Several pumps may share one."""

    def __new__(cls) -> Progress: ...
    @property
    def done(self) -> int:
        """Bytes written so far."""
    def cancel(self) -> None:
        """End every pump that has this progress with ``CancelledError``.

        It takes less than 50 ms, unless a disk holds the pump up. A cancelled progress stays so,
        and is not used again.
        """

@final
class LayerSealer:
    """Encrypts one layer that comes in pieces of any length.

    Key (32 bytes) and nonce (16 bytes) are drawn from the operating system: no caller can give a
    pair twice.

    A sealer belongs to one thread at a time. It is closed after ``finalize`` and after the first
    error, whatever it was; each later call raises ``StreamClosedError``.

    Raises ``InputError`` for an unknown ``COCO_KP_KERNEL``.
    """

    def __new__(cls) -> LayerSealer: ...
    def update(self, data: WriteableBuffer) -> None:
        """Encrypt the next piece in place.

        Raises ``BufferError`` where it is not contiguous or read-only.
        """
    def pump(
        self,
        src: FileDescriptorLike,
        dst: FileDescriptorLike,
        *,
        limit: int | None = None,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> int:
        """Encrypt all that ``src`` holds from where it stands into ``dst``; return the byte count.

        Files, pipes and sockets will do for both; neither is closed. ``limit`` is the most that the
        source may hold, in bytes. ``threads`` is 1 or 2; buffers take 256 KiB. The interpreter lock
        is released. On the main thread signal handlers run, and an exception of theirs
        (``KeyboardInterrupt``) ends the pump at once, as ``progress.cancel()`` does.

        Raises ``OSError`` with its ``errno`` if reading or writing fails (``EINVAL`` if both are
        one file: then nothing is written), ``IntegrityError`` if the source holds more than
        ``limit`` (nothing beyond it is written), ``CancelledError``. What is in ``dst`` then is of
        no use, and the sealer is closed.
        """
    def repeat(self, number: int, data: WriteableBuffer) -> None:
        """Make a chunk of what it took once more, as ``SealedLayer.repeat``."""
    def finalize(self) -> SealedLayer:
        """End the layer."""

@final
class LayerOpener:
    """Decrypts one layer that comes in pieces of any length.

    Plaintext leaves ``update`` before the verdict, which only ``finalize`` gives: keep it out of
    everybody's reach until then. Threads and closing are as for ``LayerSealer``.

    Raises ``InputError`` for a key, nonce or HMAC of another length than 32, 16 and 32 bytes, or an
    unknown ``COCO_KP_KERNEL``.
    """

    def __new__(
        cls,
        *,
        key: ReadableBuffer,
        nonce: ReadableBuffer,
        hmac: ReadableBuffer,
    ) -> LayerOpener: ...
    def update(self, data: WriteableBuffer) -> None:
        """Decrypt the next piece in place, as ``LayerSealer.update``."""
    def pump(
        self,
        src: FileDescriptorLike,
        dst: FileDescriptorLike,
        *,
        limit: int | None = None,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> int:
        """Decrypt all that ``src`` holds into ``dst``, as ``LayerSealer.pump``."""
    def repeat(self, number: int, data: WriteableBuffer) -> None:
        """Make a chunk of what it took once more, as ``SealedLayer.repeat``."""
    def finalize(self) -> OpenedLayer:
        """End the layer and compare its HMAC in constant time.

        Raises ``IntegrityError`` if the key is wrong or the ciphertext was altered. A wrong nonce
        is not detected, for the HMAC does not cover it: it shows in the plaintext's digest.
        """

@final
class Kek:
    """A key-encryption key: ``Kek(raw)`` uses 32 raw bytes as they stand.

    Its repr shows only the fingerprint. Not comparable, not picklable. Raises ``KekError`` unless
    there are exactly 32 bytes.
    """

    def __new__(cls, raw: ReadableBuffer) -> Kek: ...
    @staticmethod
    def generate() -> Kek:
        """Draw a key from the operating system."""
    def wrap(self, algorithm: str, secret: ReadableBuffer) -> tuple[bytes, bytes]:
        """Wrap a secret of at most 64 KiB; return (iv, wrapped).

        ``A256GCM``: 12-byte IV, 16-byte tag at the end of ``wrapped``, no additional data.
        ``A256CTR``: 16-byte IV, no tag: it does not detect tampering. The IV is drawn from the
        operating system. Raises ``InputError`` for an unknown algorithm or a longer secret.
        """
    def unwrap(self, algorithm: str, iv: ReadableBuffer, wrapped: ReadableBuffer) -> bytes:
        """Unwrap what ``wrap`` made.

        Raises ``KekError`` if the tag does not verify, ``InputError`` for an unknown algorithm or a
        wrong length. With ``A256CTR`` a wrong key yields other bytes and no error.
        """
    @property
    def fingerprint(self) -> str:
        """``sha256:`` and the first 16 hex digits of the raw key's SHA-256 (see ``sha256sum``)."""
    def raw(self) -> bytes:
        """Return the raw key, 32 bytes, for export to a file."""

@final
class Unpacking:
    """What was unpacked so far of an archive or a command's layers; several threads may tell it.

    ``allowed`` are bytes in place of ``FREE``, by the user's word. Deflate can make 1032 bytes of
    one, zstd 32768; programs and texts rarely exceed 20, and ``FREE`` is for long runs of zeros.
    """

    FREE: Final[int]
    """Bytes in sum that may come on top of 100 times the compressed ones, and up to 1 TiB, unless
    the user allows more."""
    def __new__(cls, allowed: int = ...) -> Unpacking: ...
    def packed(self, size: int) -> None:
        """Learn that ``size`` compressed bytes are unpacked next."""
    def unpacked(self, size: int) -> None:
        """Learn that ``size`` bytes came out. Raises ``InputError`` if that is too much."""

@final
class Decompressor:
    """Decompresses one stream that comes in pieces, within bounds. Closing is as for layers.

    ``gzip``: one member after another (RFC 1952); ``zstd``: one frame after another, skippable ones
    included (RFC 8878), none of which may look back more than 32 MiB.
    """

    def __new__(cls, compression: str, unpacking: Unpacking) -> Decompressor: ...
    def feed(self, data: ReadableBuffer) -> None:
        """Take the next piece, whose content is then to be read before the next one comes."""
    def read(self) -> bytes:
        """Return the next content, 256 KiB at the most; empty once more is to be fed.

        Raises ``IntegrityError`` if the stream is not what it should be, ``InputError`` beyond what
        may be unpacked.
        """
    def finish(self) -> None:
        """End the stream. Raises ``IntegrityError`` if it is not complete."""

@final
class ContentCheck:
    """Reads the content of one layer that comes in pieces of any length.

    ``compression`` is ``gzip``, ``zstd`` or empty; ``algorithm``, ``sha256`` or ``sha512``, that of
    the content's digest. ``guest`` asks what a guest would say that unpacks it. ``aside``: on a
    thread of its own, with the caller's help where it is behind, and on the caller's where there is
    none to be had. Memory is bounded: some MiB, and with ``guest`` what 500,000 names take.
    """

    def __new__(
        cls,
        compression: str,
        algorithm: str,
        unpacking: Unpacking,
        *,
        guest: bool = False,
        aside: bool = False,
    ) -> ContentCheck: ...
    def update(self, data: ReadableBuffer) -> None:
        """Take the next piece, which may be overwritten afterwards.

        What is wrong with it, ``finish`` says.
        """
    def finish(self) -> tuple[bytes, InputError | None]:
        """End the layer; return its content's digest, and why a guest would refuse it, if it would.

        Raises ``IntegrityError`` if it is not compressed as it should be, ``InputError`` beyond
        what may be unpacked.
        """
    def close(self) -> None:
        """End its thread, if it has one, without a verdict; after ``finish`` it does nothing."""

def kernel() -> str:
    """Return the name of the kernel that encrypts layers in this process.

    ``COCO_KP_KERNEL`` chooses another; raises ``InputError`` if this processor has none of that
    name.
    """
