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

from coco_kp._native import CHUNK, LayerOpener, LayerSealer
from coco_kp.errors import InputError, IntegrityError, StreamClosedError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "layer_cipher.json").read_text())
KEY = bytes(range(32))
NONCE = bytes(range(0xA0, 0xB0))
TEXT = b"ocicrypt layer test vector: not a real gzip stream\n"
LONG = bytes(i % 251 for i in range(300_001))  # beyond where the interpreter lock is released


def sealer() -> LayerSealer:
    return LayerSealer(key=KEY, nonce=NONCE)


def opener_for(ciphertext: bytes | bytearray) -> LayerOpener:
    return LayerOpener(key=KEY, nonce=NONCE, hmac=hmac.digest(KEY, ciphertext, "sha256"))


def plaintext_of(vector: dict[str, Any]) -> bytes:
    text = vector["plaintext"].get("ascii")
    if text is not None:
        return bytes(text, "ascii")
    return bytes(i % 251 for i in range(vector["plaintext_size"]))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_layer_sealer_and_opener_match_known_answers(vector: dict[str, Any]) -> None:
    key, nonce = bytes.fromhex(vector["key"]), bytes.fromhex(vector["nonce"])
    plaintext = plaintext_of(vector)

    seal = LayerSealer(key=key, nonce=nonce)
    ciphertext = seal.update(plaintext)
    sealed = seal.finalize()
    assert sealed.hmac == base64.b64decode(vector["hmac"])
    assert sealed.ciphertext_sha256.hex() == vector["ciphertext_sha256"]
    assert sealed.plaintext_sha256.hex() == vector["plaintext_sha256"]
    assert (sealed.key, sealed.nonce, sealed.size) == (key, nonce, len(plaintext))
    assert ciphertext.hex() == vector.get("ciphertext", ciphertext.hex())

    opener = LayerOpener(key=key, nonce=nonce, hmac=sealed.hmac)
    assert opener.update(ciphertext) == plaintext
    opened = opener.finalize()
    assert opened.plaintext_sha256 == sealed.plaintext_sha256
    assert opened.ciphertext_sha256 == sealed.ciphertext_sha256
    assert opened.size == sealed.size


def test_layer_sealer_digests_and_hmac_match_standard_library() -> None:
    seal = sealer()
    ciphertext = seal.update(LONG)
    sealed = seal.finalize()
    assert sealed.hmac == hmac.digest(KEY, ciphertext, "sha256")
    assert sealed.ciphertext_sha256 == hashlib.sha256(ciphertext).digest()
    assert sealed.plaintext_sha256 == hashlib.sha256(LONG).digest()


@pytest.mark.parametrize("step", [1, 7, 64, 65, 4096, 65_535, 65_536, 70_000, len(LONG)])
def test_layer_sealer_yields_same_layer_from_pieces_of_any_length(step: int) -> None:
    whole = sealer()
    expected = whole.update(LONG)
    data = LONG if step > 64 else LONG[:5000]
    seal = sealer()
    pieces = [seal.update(data[at : at + step]) for at in range(0, len(data), step)]
    assert b"".join(pieces) == expected[: len(data)]
    assert seal.finalize().hmac == hmac.digest(KEY, expected[: len(data)], "sha256")


def test_layer_sealer_draws_new_key_and_nonce_and_returns_them() -> None:
    first, second = LayerSealer(), LayerSealer()
    ciphertext = first.update(TEXT)
    sealed, other = first.finalize(), second.finalize()
    assert len(sealed.key) == 32
    assert len(sealed.nonce) == 16
    assert sealed.key != other.key
    assert sealed.nonce != other.nonce
    opener = LayerOpener(key=sealed.key, nonce=sealed.nonce, hmac=sealed.hmac)
    assert opener.update(ciphertext) == TEXT
    opener.finalize()


@pytest.mark.parametrize("length", [0, 1, 51, 64, 65_536, 100_000])
def test_layer_update_into_writes_to_separate_longer_or_same_buffer(length: int) -> None:
    data = LONG[:length]
    expected = sealer().update(data)

    apart = bytearray(b"\xee" * (length + 3))
    assert sealer().update_into(data, apart) == length
    assert apart == expected + b"\xee" * 3

    same = bytearray(data)
    seal = sealer()
    assert seal.update_into(same, same) == length
    assert same == expected
    assert seal.finalize().plaintext_sha256 == hashlib.sha256(data).digest()

    opener = opener_for(expected)
    view = memoryview(same)
    assert opener.update_into(view, view) == length
    assert same == data
    opener.finalize()


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(TEXT[:48]),
        memoryview(TEXT)[:48],
        memoryview(b"x" + TEXT)[1:49],
        array.array("B", TEXT[:48]),
        array.array("I", TEXT[:48]),
        memoryview(TEXT[:48]).cast("d"),
        memoryview(TEXT[:48]).cast("B", (4, 12)),
    ],
    ids=["bytearray", "memoryview", "unaligned", "array_B", "array_I", "doubles", "matrix"],
)
def test_layer_update_accepts_any_contiguous_buffer(buffer: Any) -> None:
    assert sealer().update(buffer) == sealer().update(TEXT[:48])


@pytest.mark.parametrize(
    ("src", "dst", "error"),
    [
        (TEXT, bytearray(len(TEXT) - 1), "too short: 50 bytes for 51"),
        (TEXT, bytearray(), "too short"),
        (TEXT, bytes(100), "read-only"),
        (TEXT, memoryview(bytearray(200))[::2], "contiguous"),
        (memoryview(TEXT)[::2], bytearray(100), "contiguous"),
        (memoryview(TEXT)[::-1], bytearray(100), "contiguous"),
    ],
    ids=["short", "empty", "read_only", "strided_dst", "strided_src", "reversed_src"],
)
def test_layer_update_into_refuses_unsuitable_buffers(src: Any, dst: Any, error: str) -> None:
    before = bytes(dst)
    with pytest.raises((ValueError, BufferError), match=error):
        sealer().update_into(src, dst)
    assert bytes(dst) == before


@pytest.mark.parametrize("offset", [-63, -1, 1, 63])
def test_layer_update_into_refuses_partial_overlap(offset: int) -> None:
    memory = bytearray(256)
    src = memoryview(memory)[96 : 96 + 64]
    dst = memoryview(memory)[96 + offset : 96 + 64 + offset]
    with pytest.raises(ValueError, match="overlap in part"):
        sealer().update_into(src, dst)
    assert memory == bytes(256)


@pytest.mark.parametrize("offset", [-64, 64])
def test_layer_update_into_accepts_adjacent_buffers(offset: int) -> None:
    memory = bytearray(256)
    dst = memoryview(memory)[96 + offset : 96 + 64 + offset]
    assert sealer().update_into(memoryview(memory)[96 : 96 + 64], dst) == 64


@pytest.mark.parametrize("wrong", [None, "text", 3, object()])
def test_layer_update_raises_type_error_for_what_is_not_a_buffer(wrong: Any) -> None:
    with pytest.raises(TypeError):
        sealer().update(wrong)
    with pytest.raises(TypeError):
        sealer().update_into(TEXT, wrong)


def test_layer_update_releases_buffer_afterwards() -> None:
    data = bytearray(TEXT)
    seal = sealer()
    seal.update(data)
    seal.update_into(data, data)
    data.extend(b"free again")  # BufferError if an export were left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": KEY[:31], "nonce": NONCE}, "expected a 32-byte layer key, found 31 bytes"),
        ({"key": KEY, "nonce": NONCE[:12]}, "expected a 16-byte nonce, found 12 bytes"),
    ],
)
def test_layer_sealer_and_opener_refuse_key_or_nonce_of_wrong_length(
    arguments: dict[str, Any], message: str
) -> None:
    for make in (LayerSealer, lambda **given: LayerOpener(hmac=bytes(32), **given)):
        with pytest.raises(InputError) as caught:
            make(**arguments)
        assert caught.value.message == message


def test_layer_opener_refuses_hmac_of_wrong_length() -> None:
    with pytest.raises(InputError, match="expected a 32-byte HMAC, found 20 bytes"):
        LayerOpener(key=KEY, nonce=NONCE, hmac=bytes(20))


@pytest.mark.parametrize("given", [{"key": KEY}, {"nonce": NONCE}])
def test_layer_sealer_refuses_key_without_nonce_and_nonce_without_key(
    given: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="both key and nonce, or neither"):
        LayerSealer(**given)


@pytest.mark.parametrize("stream", [sealer(), opener_for(b"")], ids=["sealer", "opener"])
def test_layer_stream_refuses_use_after_finalize(stream: LayerSealer | LayerOpener) -> None:
    stream.finalize()
    with pytest.raises(StreamClosedError):
        stream.finalize()
    with pytest.raises(StreamClosedError):
        stream.update(TEXT)
    with pytest.raises(StreamClosedError):
        stream.update_into(TEXT, bytearray(100))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda stream: stream.update(None),
        lambda stream: stream.update(memoryview(TEXT)[::2]),
        lambda stream: stream.update_into(TEXT, bytearray(3)),
        lambda stream: stream.update_into(TEXT, TEXT),
    ],
    ids=["type", "strided", "short", "read_only"],
)
def test_layer_stream_refuses_use_after_first_error(mistake: Any) -> None:
    for stream in (sealer(), opener_for(b"")):
        with pytest.raises((TypeError, ValueError, BufferError)):
            mistake(stream)
        with pytest.raises(StreamClosedError):
            stream.update(TEXT)
        with pytest.raises(StreamClosedError):
            stream.finalize()


def test_layer_opener_detects_altered_ciphertext_and_wrong_key() -> None:
    ciphertext = bytearray(sealer().update(TEXT))
    tag = hmac.digest(KEY, ciphertext, "sha256")
    wrong_key = LayerOpener(key=KEY[::-1], nonce=NONCE, hmac=tag)
    wrong_key.update(ciphertext)
    with pytest.raises(IntegrityError):
        wrong_key.finalize()

    altered = LayerOpener(key=KEY, nonce=NONCE, hmac=tag)
    ciphertext[7] ^= 1
    altered.update(ciphertext)
    with pytest.raises(IntegrityError):
        altered.finalize()
    with pytest.raises(StreamClosedError):
        altered.finalize()


def test_layer_opener_detects_flipped_nonce_by_plaintext_digest_only() -> None:
    ciphertext = sealer().update(TEXT)
    opener = LayerOpener(
        key=KEY, nonce=NONCE[:-1] + b"\0", hmac=hmac.digest(KEY, ciphertext, "sha256")
    )
    assert opener.update(ciphertext) != TEXT
    assert opener.finalize().plaintext_sha256 != hashlib.sha256(TEXT).digest()


def test_layer_errors_and_reprs_show_no_secret() -> None:
    seal = LayerSealer(key=b"K" * 32, nonce=b"N" * 16)
    ciphertext = seal.update(TEXT)
    sealed = seal.finalize()
    opener = LayerOpener(key=b"K" * 32, nonce=b"N" * 16, hmac=bytes(32))
    opener.update(ciphertext)
    with pytest.raises(IntegrityError) as caught:
        opener.finalize()
    shown = " ".join(map(repr, (seal, sealed, opener, caught.value))) + str(caught.value)
    for secret in (b"K" * 8, b"N" * 8, sealed.hmac[:8]):
        for spelling in (secret.decode("latin1"), secret.hex(), base64.b64encode(secret).decode()):
            assert spelling[:10] not in shown
    assert f"sha256:{sealed.ciphertext_sha256.hex()[:8]}" in repr(sealed)
    assert "51 bytes" in repr(sealed)


def test_layer_streams_and_results_cannot_be_copied_pickled_or_changed() -> None:
    sealed = sealer().finalize()
    for thing in (sealer(), opener_for(b""), sealed):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)
    with pytest.raises(AttributeError):
        sealed.key = KEY  # type: ignore[misc]


def test_layer_update_into_lets_other_threads_run() -> None:
    data = bytes(64 << 20)
    seal, dst = sealer(), bytearray(len(data))
    worker = threading.Thread(target=seal.update_into, args=(data, dst))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    assert turns > 1000  # one or two, if the lock were held


def test_layer_stream_refuses_second_thread_and_continues_with_first() -> None:
    data = bytes(32 << 20)
    seal, dst = sealer(), bytearray(len(data))
    worker = threading.Thread(target=seal.update_into, args=(data, dst))
    worker.start()
    refused = 0
    while worker.is_alive():
        try:
            seal.update(b"")
        except StreamClosedError as error:
            assert "another thread" in error.message  # noqa: PT017
            refused += 1
    assert refused > 0
    worker.join()
    assert seal.finalize().ciphertext_sha256 == hashlib.sha256(dst).digest()


def test_layer_sealers_on_many_threads_agree() -> None:
    expected = sealer().update(LONG)
    results: list[bytes] = []

    def work() -> None:
        results.append(sealer().update(LONG))

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
    expected = hmac.digest(KEY, sealer().update(text), "sha256").hex()
    code = (
        f"seal = _native.LayerSealer(key={KEY!r}, nonce={NONCE!r}); seal.update({text!r});"
        "print(_native.kernel(), seal.finalize().hmac.hex())"
    )
    for name in names:
        assert run_with_kernel(name, code).stdout == f"{name} {expected}\n"
    assert run_with_kernel(None, "print(_native.kernel())").stdout == f"{names[0]}\n"


def test_layer_chunk_is_made_again_before_and_after_the_end() -> None:
    text = os.urandom(CHUNK + 1000)
    ciphertext = bytearray(text)
    stream = sealer()
    stream.update_into(ciphertext, ciphertext)
    sealed = None
    for _ in range(2):
        for number, end in ((0, CHUNK), (1, len(text))):
            chunk = bytearray(text[number * CHUNK : end])
            (sealed or stream).repeat(number, chunk)
            assert chunk == ciphertext[number * CHUNK : end]
        sealed = sealed or stream.finalize()
    opener = opener_for(ciphertext)
    opener.update(ciphertext)
    opened = opener.finalize()
    chunk = bytearray(ciphertext[:CHUNK])
    opened.repeat(0, chunk)
    assert chunk == text[:CHUNK]


def test_layer_chunk_is_not_made_again_from_other_bytes() -> None:
    stream = sealer()
    stream.update(LONG)
    chunk = bytearray(LONG)
    chunk[-1] ^= 1
    before = bytes(chunk)
    with pytest.raises(IntegrityError, match="gave other bytes when it was read again"):
        stream.repeat(0, chunk)
    assert chunk == before
    with pytest.raises(StreamClosedError):
        stream.update(b"x")


def test_layer_chunk_that_is_not_there_is_not_made_again() -> None:
    sealed = sealer().finalize()
    with pytest.raises(InputError, match="no such chunk"):
        sealed.repeat(0, bytearray())


def test_layer_chunk_is_not_made_again_in_read_only_memory() -> None:
    stream = sealer()
    stream.update(LONG)
    with pytest.raises(BufferError, match="read-only"):
        stream.repeat(0, LONG)
