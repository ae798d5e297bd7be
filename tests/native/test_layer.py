"""The border of sealing and opening: buffers, closing, threads, errors.

Kernels have their tests in Rust.
"""

from __future__ import annotations

import array
import base64
import copy
import hashlib
import hmac
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from coco_kp._native import CHUNK, LayerOpener, LayerSealer, SealedLayer
from coco_kp.errors import InputError, IntegrityError, StreamClosedError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "layer_cipher.json").read_text())
KEY = bytes(range(32))
NONCE = bytes(range(0xA0, 0xB0))
TEXT = b"ocicrypt layer test vector: not a real gzip stream\n"
LONG = bytes(i % 251 for i in range(300_001))  # beyond where the interpreter lock is released


def opener_for(ciphertext: bytes | bytearray) -> LayerOpener:
    return LayerOpener(key=KEY, nonce=NONCE, hmac=hmac.digest(KEY, ciphertext, "sha256"))


def passed(stream: LayerSealer | LayerOpener, data: bytes | bytearray) -> bytes:
    """Return what a stream makes of its next piece."""
    buffer = bytearray(data)
    stream.update(buffer)
    return bytes(buffer)


def encrypted(plaintext: bytes) -> bytes:
    """Return what a plaintext is under ``KEY``: counter mode is the same both ways."""
    return passed(opener_for(b""), plaintext)


def sealed_layer(plaintext: bytes) -> tuple[bytes, SealedLayer]:
    sealer = LayerSealer()
    return passed(sealer, plaintext), sealer.finalize()


def opened(ciphertext: bytes, sealed: SealedLayer) -> bytes:
    """Return what a sealed layer opens to, once its HMAC has verified."""
    opener = LayerOpener(key=sealed.key, nonce=sealed.nonce, hmac=sealed.hmac)
    plaintext = passed(opener, ciphertext)
    opener.finalize()
    return plaintext


def plaintext_of(vector: dict[str, Any]) -> bytes:
    text = vector["plaintext"].get("ascii")
    if text is not None:
        return bytes(text, "ascii")
    return bytes(i % 251 for i in range(vector["plaintext_size"]))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_layer_opener_matches_known_answers(vector: dict[str, Any]) -> None:
    """Sealing under a known key has its known answers in Rust."""
    key, nonce = bytes.fromhex(vector["key"]), bytes.fromhex(vector["nonce"])
    tag, plaintext = base64.b64decode(vector["hmac"]), plaintext_of(vector)
    ciphertext = passed(LayerOpener(key=key, nonce=nonce, hmac=tag), plaintext)
    assert ciphertext.hex() == vector.get("ciphertext", ciphertext.hex())
    opener = LayerOpener(key=key, nonce=nonce, hmac=tag)
    assert passed(opener, ciphertext) == plaintext
    ended = opener.finalize()
    assert ended.plaintext_sha256.hex() == vector["plaintext_sha256"]
    assert ended.ciphertext_sha256.hex() == vector["ciphertext_sha256"]
    assert ended.size == len(plaintext)


def test_layer_sealer_digests_and_hmac_match_standard_library() -> None:
    ciphertext, sealed = sealed_layer(LONG)
    assert sealed.hmac == hmac.digest(sealed.key, ciphertext, "sha256")
    assert sealed.ciphertext_sha256 == hashlib.sha256(ciphertext).digest()
    assert sealed.plaintext_sha256 == hashlib.sha256(LONG).digest()
    assert sealed.size == len(LONG)


@pytest.mark.parametrize("step", [1, 7, 64, 65, 4096, 65_535, 65_536, 70_000, len(LONG)])
def test_layer_sealer_yields_layer_from_pieces_of_any_length(step: int) -> None:
    data = LONG if step > 64 else LONG[:5000]
    seal = LayerSealer()
    pieces = [passed(seal, data[at : at + step]) for at in range(0, len(data), step)]
    assert opened(b"".join(pieces), seal.finalize()) == data


def test_layer_sealer_draws_new_key_and_nonce_and_returns_them() -> None:
    (ciphertext, sealed), (_, other) = sealed_layer(TEXT), sealed_layer(TEXT)
    assert len(sealed.key) == 32
    assert len(sealed.nonce) == 16
    assert sealed.key != other.key
    assert sealed.nonce != other.nonce
    assert opened(ciphertext, sealed) == TEXT


@pytest.mark.parametrize("length", [0, 1, 51, 64, 65_536, 100_000])
def test_layer_update_overwrites_its_buffer_and_nothing_beside_it(length: int) -> None:
    data = LONG[:length]
    memory = bytearray(b"\xee" * 3 + data + b"\xee" * 3)
    view = memoryview(memory)[3 : 3 + length]
    seal = LayerSealer()
    seal.update(view)
    sealed = seal.finalize()
    assert memory[:3] + memory[3 + length :] == b"\xee" * 6
    assert sealed.ciphertext_sha256 == hashlib.sha256(view).digest()
    opener = LayerOpener(key=sealed.key, nonce=sealed.nonce, hmac=sealed.hmac)
    opener.update(view)
    assert view == data
    opener.finalize()


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(TEXT[:48]),
        memoryview(bytearray(TEXT))[:48],
        memoryview(bytearray(b"x" + TEXT))[1:49],
        array.array("B", TEXT[:48]),
        array.array("I", TEXT[:48]),
        memoryview(bytearray(TEXT[:48])).cast("d"),
        memoryview(bytearray(TEXT[:48])).cast("B", (4, 12)),
    ],
    ids=["bytearray", "memoryview", "unaligned", "array_B", "array_I", "doubles", "matrix"],
)
def test_layer_update_accepts_any_contiguous_buffer(buffer: Any) -> None:
    opener_for(b"").update(buffer)
    assert bytes(buffer) == encrypted(TEXT[:48])


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        (TEXT, "read-only"),
        (b"", "read-only"),
        (memoryview(bytearray(200))[::2], "contiguous"),
        (memoryview(bytearray(TEXT))[::-1], "contiguous"),
    ],
    ids=["bytes", "empty", "strided", "reversed"],
)
def test_layer_update_refuses_unsuitable_buffers(buffer: Any, error: str) -> None:
    before = bytes(buffer)
    with pytest.raises(BufferError, match=error):
        LayerSealer().update(buffer)
    assert bytes(buffer) == before


@pytest.mark.parametrize("wrong", [None, "text", 3, object()])
def test_layer_update_raises_type_error_for_what_is_not_a_buffer(wrong: Any) -> None:
    with pytest.raises(TypeError):
        LayerSealer().update(wrong)


def test_layer_update_releases_buffer_afterwards() -> None:
    data = bytearray(TEXT)
    LayerSealer().update(data)
    data.extend(b"free again")  # BufferError if an export were left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": KEY[:31], "nonce": NONCE}, "expected a 32-byte layer key, found 31 bytes"),
        ({"key": KEY, "nonce": NONCE[:12]}, "expected a 16-byte nonce, found 12 bytes"),
    ],
)
def test_layer_opener_refuses_key_or_nonce_of_wrong_length(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        LayerOpener(hmac=bytes(32), **arguments)
    assert caught.value.message == message


def test_layer_opener_refuses_hmac_of_wrong_length() -> None:
    with pytest.raises(InputError, match="expected a 32-byte HMAC, found 20 bytes"):
        LayerOpener(key=KEY, nonce=NONCE, hmac=bytes(20))


@pytest.mark.parametrize("stream", [LayerSealer(), opener_for(b"")], ids=["sealer", "opener"])
def test_layer_stream_refuses_use_after_finalize(stream: LayerSealer | LayerOpener) -> None:
    stream.finalize()
    with pytest.raises(StreamClosedError):
        stream.finalize()
    with pytest.raises(StreamClosedError):
        stream.update(bytearray(TEXT))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda stream: stream.update(None),
        lambda stream: stream.update(memoryview(bytearray(TEXT))[::2]),
        lambda stream: stream.update(TEXT),
    ],
    ids=["type", "strided", "read_only"],
)
def test_layer_stream_refuses_use_after_first_error(mistake: Any) -> None:
    for stream in (LayerSealer(), opener_for(b"")):
        with pytest.raises((TypeError, BufferError)):
            mistake(stream)
        with pytest.raises(StreamClosedError):
            stream.update(bytearray(TEXT))
        with pytest.raises(StreamClosedError):
            stream.finalize()


def test_layer_opener_detects_altered_ciphertext_and_wrong_key() -> None:
    ciphertext = bytearray(encrypted(TEXT))
    tag = hmac.digest(KEY, ciphertext, "sha256")
    wrong_key = LayerOpener(key=KEY[::-1], nonce=NONCE, hmac=tag)
    passed(wrong_key, ciphertext)
    with pytest.raises(IntegrityError):
        wrong_key.finalize()

    altered = LayerOpener(key=KEY, nonce=NONCE, hmac=tag)
    ciphertext[7] ^= 1
    passed(altered, ciphertext)
    with pytest.raises(IntegrityError):
        altered.finalize()
    with pytest.raises(StreamClosedError):
        altered.finalize()


def test_layer_opener_detects_flipped_nonce_by_plaintext_digest_only() -> None:
    ciphertext = encrypted(TEXT)
    opener = LayerOpener(
        key=KEY, nonce=NONCE[:-1] + b"\0", hmac=hmac.digest(KEY, ciphertext, "sha256")
    )
    assert passed(opener, ciphertext) != TEXT
    assert opener.finalize().plaintext_sha256 != hashlib.sha256(TEXT).digest()


def test_layer_errors_and_reprs_show_no_secret() -> None:
    ciphertext, sealed = sealed_layer(TEXT)
    opener = LayerOpener(key=sealed.key, nonce=sealed.nonce, hmac=bytes(32))
    passed(opener, ciphertext)
    with pytest.raises(IntegrityError) as caught:
        opener.finalize()
    shown = " ".join(map(repr, (LayerSealer(), sealed, opener, caught.value))) + str(caught.value)
    for secret in (sealed.key[:8], sealed.nonce[:8], sealed.hmac[:8]):
        for spelling in (secret.decode("latin1"), secret.hex(), base64.b64encode(secret).decode()):
            assert spelling[:10] not in shown
    assert f"sha256:{sealed.ciphertext_sha256.hex()[:8]}" in repr(sealed)
    assert "51 bytes" in repr(sealed)


def test_layer_streams_and_results_cannot_be_copied_pickled_or_changed() -> None:
    sealed = LayerSealer().finalize()
    for thing in (LayerSealer(), opener_for(b""), sealed):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)
    with pytest.raises(AttributeError):
        sealed.key = KEY  # type: ignore[misc]


def test_layer_update_lets_other_threads_run() -> None:
    worker = threading.Thread(target=LayerSealer().update, args=(bytearray(64 << 20),))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    assert turns > 1000  # one or two, if the lock were held


def test_layer_stream_refuses_second_thread_and_continues_with_first() -> None:
    seal, data = LayerSealer(), bytearray(32 << 20)
    worker = threading.Thread(target=seal.update, args=(data,))
    worker.start()
    refused = 0
    while worker.is_alive():
        try:
            seal.update(bytearray())
        except StreamClosedError as error:
            assert "another thread" in error.message  # noqa: PT017
            refused += 1
    assert refused > 0
    worker.join()
    assert seal.finalize().ciphertext_sha256 == hashlib.sha256(data).digest()


def test_layer_streams_on_many_threads_agree() -> None:
    expected = encrypted(LONG)
    results: list[bytes] = []

    def work() -> None:
        results.append(encrypted(LONG))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 8


def run_with_kernel(name: str | None, code: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "COCO_KP_KERNEL"}
    return subprocess.run(
        [sys.executable, "-c", f"from coco_kp import _native; {code}"],
        env=environment | ({} if name is None else {"COCO_KP_KERNEL": name}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("code", ["_native.kernel()", "_native.LayerSealer()"])
def test_kernel_variable_with_unknown_name_is_refused_with_known_names(code: str) -> None:
    last_line = run_with_kernel("quantum", code).stderr.splitlines()[-1]
    assert "InputError: this processor has no kernel 'quantum'" in last_line
    assert "portable" in last_line


def test_kernel_variable_selects_each_known_kernel_and_default_is_first() -> None:
    error = run_with_kernel("", "_native.kernel()").stderr
    names = error.split("set it to ")[1].rstrip(")\n").split(" or ")
    text = LONG[:999]
    code = (
        f"data = bytearray({text!r});"
        f"_native.LayerOpener(key={KEY!r}, nonce={NONCE!r}, hmac=bytes(32)).update(data);"
        "print(_native.kernel(), data.hex())"
    )
    for name in names:
        assert run_with_kernel(name, code).stdout == f"{name} {encrypted(text).hex()}\n"
    assert run_with_kernel(None, "print(_native.kernel())").stdout == f"{names[0]}\n"


def test_layer_chunk_is_made_again_before_and_after_the_end() -> None:
    text = os.urandom(CHUNK + 1000)
    stream = LayerSealer()
    ciphertext, sealed = passed(stream, text), None
    for _ in range(2):
        for number, end in ((0, CHUNK), (1, len(text))):
            chunk = bytearray(text[number * CHUNK : end])
            (sealed or stream).repeat(number, chunk)
            assert chunk == ciphertext[number * CHUNK : end]
        sealed = sealed or stream.finalize()
    assert sealed is not None
    opener = LayerOpener(key=sealed.key, nonce=sealed.nonce, hmac=sealed.hmac)
    passed(opener, ciphertext)
    chunk = bytearray(ciphertext[:CHUNK])
    opener.finalize().repeat(0, chunk)
    assert chunk == text[:CHUNK]


def test_layer_chunk_is_not_made_again_from_other_bytes() -> None:
    stream = LayerSealer()
    passed(stream, LONG)
    chunk = bytearray(LONG)
    chunk[-1] ^= 1
    before = bytes(chunk)
    with pytest.raises(IntegrityError, match="gave other bytes when it was read again"):
        stream.repeat(0, chunk)
    assert chunk == before
    with pytest.raises(StreamClosedError):
        stream.update(bytearray(b"x"))


def test_layer_chunk_that_is_not_there_is_not_made_again() -> None:
    sealed = LayerSealer().finalize()
    with pytest.raises(InputError, match="no such chunk"):
        sealed.repeat(0, bytearray())


def test_layer_chunk_is_not_made_again_in_read_only_memory() -> None:
    stream = LayerSealer()
    passed(stream, LONG)
    with pytest.raises(BufferError, match="read-only"):
        stream.repeat(0, LONG)
