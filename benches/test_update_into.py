"""Sealing from Python, memory to memory, beside OpenSSL's SHA-256 of the same buffer."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import LayerOpener, LayerSealer

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

PIECE = 1 << 20
DATA = os.urandom(64 * PIECE)


@pytest.mark.benchmark(group="64 MiB")
def test_openssl_sha256(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(lambda: hashlib.sha256(DATA).digest())) == 32


@pytest.mark.benchmark(group="64 MiB")
def test_seal(benchmark: BenchmarkFixture) -> None:
    def seal() -> int:
        sealer, view, target = LayerSealer(), memoryview(DATA), bytearray(PIECE)
        for start in range(0, len(DATA), PIECE):
            sealer.update_into(view[start : start + PIECE], target)
        return sealer.finalize().size

    assert benchmark(seal) == len(DATA)


@pytest.mark.benchmark(group="64 MiB")
def test_open(benchmark: BenchmarkFixture) -> None:
    sealer = LayerSealer()
    ciphertext = memoryview(sealer.update(DATA))
    sealed = sealer.finalize()

    def unseal() -> int:
        opener = LayerOpener(key=sealed.key, nonce=sealed.nonce, hmac=sealed.hmac)
        target = bytearray(PIECE)
        for start in range(0, len(DATA), PIECE):
            opener.update_into(ciphertext[start : start + PIECE], target)
        return opener.finalize().size

    assert benchmark(unseal) == len(DATA)
