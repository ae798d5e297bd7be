"""The border of the pump: descriptors, limits, errors, progress, cancelling, signals."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import itertools
import operator
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from coco_kp._native import LayerOpener, LayerSealer, Progress, SealedLayer
from coco_kp.errors import CancelledError, IntegrityError, StreamClosedError
from tests.support.patience import PATIENCE, ends, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAINTEXT = bytes(i % 251 for i in range(3_000_001))
BOTH_WAYS = pytest.mark.parametrize("threads", [1, 2])


class Sealed(NamedTuple):
    """A layer in memory, and what opens it."""

    layer: SealedLayer
    ciphertext: bytes

    def opener(self) -> LayerOpener:
        layer = self.layer
        return LayerOpener(key=layer.key, nonce=layer.nonce, hmac=layer.hmac)


def plaintext_of(layer: SealedLayer, ciphertext: bytes) -> bytes:
    """Open what a pump sealed, without one; raises ``IntegrityError``."""
    opener, data = Sealed(layer, ciphertext).opener(), bytearray(ciphertext)
    opener.update(data)
    opener.finalize()
    return bytes(data)


@pytest.fixture
def sealed() -> Sealed:
    sealer, data = LayerSealer(), bytearray(PLAINTEXT)
    sealer.update(data)
    return Sealed(sealer.finalize(), bytes(data))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(PLAINTEXT)
    return path


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


@BOTH_WAYS
def test_pump_seals_and_opens_file(threads: int, source: Path, tmp_path: Path) -> None:
    sealed_path, opened_path = tmp_path / "sealed", tmp_path / "opened"
    seal, progress = LayerSealer(), Progress()
    with source.open("rb") as src, sealed_path.open("wb") as dst:
        assert seal.pump(src, dst, threads=threads, progress=progress) == len(PLAINTEXT)
    assert progress.done == len(PLAINTEXT)
    sealed, ciphertext = seal.finalize(), sealed_path.read_bytes()
    assert plaintext_of(sealed, ciphertext) == PLAINTEXT
    assert sealed.hmac == hmac.digest(sealed.key, ciphertext, "sha256")
    assert sealed.ciphertext_sha256 == hashlib.sha256(ciphertext).digest()
    assert sealed.plaintext_sha256 == hashlib.sha256(PLAINTEXT).digest()

    opener = Sealed(sealed, ciphertext).opener()
    with sealed_path.open("rb") as src, opened_path.open("wb") as dst:
        assert opener.pump(src.fileno(), dst.fileno(), threads=threads) == len(PLAINTEXT)
    assert opener.finalize().plaintext_sha256 == sealed.plaintext_sha256
    assert opened_path.read_bytes() == PLAINTEXT


@BOTH_WAYS
def test_pump_of_altered_ciphertext_fails_at_finalize(
    threads: int, tmp_path: Path, sealed: Sealed
) -> None:
    altered = bytearray(sealed.ciphertext)
    altered[-1] ^= 1
    (tmp_path / "sealed").write_bytes(altered)
    opener = sealed.opener()
    with (tmp_path / "sealed").open("rb") as src, (tmp_path / "opened").open("wb") as dst:
        opener.pump(src, dst, threads=threads)
    with pytest.raises(IntegrityError):
        opener.finalize()


def test_pump_continues_from_position_of_descriptors(source: Path, tmp_path: Path) -> None:
    target, seal = tmp_path / "target", LayerSealer()
    with source.open("rb", buffering=0) as src, target.open("wb", buffering=0) as dst:
        src.seek(1000)
        dst.write(b"before")
        assert seal.pump(src, dst) == len(PLAINTEXT) - 1000
        dst.write(b"after")
    written = target.read_bytes()
    assert (written[:6], written[-5:]) == (b"before", b"after")
    assert plaintext_of(seal.finalize(), written[6:-5]) == PLAINTEXT[1000:]


@BOTH_WAYS
def test_pump_reads_from_socket(threads: int, tmp_path: Path) -> None:
    near, far = socket.socketpair()
    seal = LayerSealer()
    with near, far, (tmp_path / "target").open("wb") as dst:

        def feed() -> None:
            far.sendall(PLAINTEXT)
            far.shutdown(socket.SHUT_WR)

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert seal.pump(near, dst, threads=threads) == len(PLAINTEXT)
        feeder.join()
    assert plaintext_of(seal.finalize(), (tmp_path / "target").read_bytes()) == PLAINTEXT


@BOTH_WAYS
def test_pump_refuses_source_longer_than_limit(threads: int, source: Path, tmp_path: Path) -> None:
    limit = len(PLAINTEXT) - 1
    seal = LayerSealer()
    with source.open("rb") as src, (tmp_path / "target").open("wb") as dst:
        with pytest.raises(IntegrityError, match=f"more than its {limit} bytes"):
            seal.pump(src, dst, limit=limit, threads=threads)
        with pytest.raises(StreamClosedError):
            seal.finalize()
        src.seek(0)
        assert LayerSealer().pump(src, dst, limit=limit + 1, threads=threads) == limit + 1


@BOTH_WAYS
def test_pump_into_full_disk_raises_enospc(threads: int, source: Path) -> None:
    seal = LayerSealer()
    with source.open("rb") as src, Path("/dev/full").open("wb") as dst:
        with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$") as caught:
            seal.pump(src, dst, threads=threads)
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(StreamClosedError):
        seal.update(bytearray())


@BOTH_WAYS
def test_pump_raises_broken_pipe_error_and_is_a_directory_error(
    threads: int, source: Path, tmp_path: Path
) -> None:
    with pipe() as (reader, writer), source.open("rb") as src:
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            LayerSealer().pump(src, writer, threads=threads)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with (tmp_path / "target").open("wb") as dst, pytest.raises(IsADirectoryError):
            LayerSealer().pump(folder, dst, threads=threads)
    finally:
        os.close(folder)


@pytest.mark.parametrize("wrong", [None, "name", 1.5, object()])
def test_pump_raises_type_error_for_what_is_not_a_descriptor(wrong: Any) -> None:
    seal = LayerSealer()
    with pytest.raises(TypeError):
        seal.pump(wrong, 1)
    with pytest.raises(StreamClosedError):
        seal.finalize()


def test_pump_raises_os_error_for_descriptor_that_is_not_open(source: Path) -> None:
    with source.open("rb") as src, pytest.raises(OSError, match="Bad file descriptor"):
        LayerSealer().pump(src, 1_000_000)
    with pytest.raises(ValueError, match="negative"):
        LayerSealer().pump(-1, 1)


@pytest.mark.parametrize("threads", [0, 3])
def test_pump_accepts_one_or_two_threads_only(threads: int, source: Path) -> None:
    with source.open("rb") as src, pytest.raises(ValueError, match="1 or 2"):
        LayerSealer().pump(src, src, threads=threads)


def test_pump_uses_one_thread_when_second_cannot_be_started(source: Path) -> None:
    code = (
        "import sys; from coco_kp._native import LayerSealer; seal = LayerSealer();"
        "seal.pump(0, 1, threads=2); sealed = seal.finalize();"
        "print(sealed.key.hex(), sealed.nonce.hex(), sealed.hmac.hex(), file=sys.stderr)"
    )
    with source.open("rb") as src:
        run = subprocess.run(
            [sys.executable, "-c", code],
            stdin=src,
            capture_output=True,
            # As where no more processes are allowed: no stack fits into the address space.
            env=os.environ | {"RUST_MIN_STACK": str(1 << 47)},
            check=True,
        )
    key, nonce, tag = (bytes.fromhex(word) for word in run.stderr.decode().split())
    opener, data = LayerOpener(key=key, nonce=nonce, hmac=tag), bytearray(run.stdout)
    opener.update(data)
    opener.finalize()
    assert data == PLAINTEXT


@BOTH_WAYS
def test_pump_waiting_for_source_ends_when_cancelled(threads: int, tmp_path: Path) -> None:
    progress = Progress()
    with pipe() as (reader, _), (tmp_path / "target").open("wb") as dst:
        timer = threading.Timer(0.1, progress.cancel)
        timer.start()
        with ends(), pytest.raises(CancelledError):
            LayerSealer().pump(reader, dst, threads=threads, progress=progress)
        timer.join()


@BOTH_WAYS
def test_pump_progress_can_be_read_from_another_thread(threads: int, tmp_path: Path) -> None:
    progress, seen = Progress(), set()

    def reached(count: int) -> bool:
        return progress.done >= count

    with pipe() as (reader, writer), (tmp_path / "target").open("wb") as dst:
        pump = threading.Thread(
            target=LayerSealer().pump,
            args=(reader, dst),
            kwargs={"threads": threads, "progress": progress},
        )
        pump.start()
        for piece in range(4):
            os.write(writer, bytes(300_000))
            wait_until(partial(reached, piece * 300_000))
            seen.add(progress.done)
        os.close(writer)
        pump.join()
    assert progress.done == 1_200_000
    assert len(seen) > 1


@BOTH_WAYS
def test_pump_runs_signal_handler_and_raises_its_exception(threads: int, tmp_path: Path) -> None:
    class StopNowError(Exception):
        pass

    def handler(_number: int, _frame: object) -> None:
        raise StopNowError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pipe() as (reader, _), (tmp_path / "target").open("wb") as dst:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(StopNowError):
                LayerSealer().pump(reader, dst, threads=threads)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@BOTH_WAYS
def test_pump_ends_on_ctrl_c(threads: int) -> None:
    code = (
        "from coco_kp._native import LayerSealer; import sys; print('ready', flush=True);"
        f"LayerSealer().pump(0, 2, threads={threads})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT


def test_pump_releases_gil_and_survives_closing_of_descriptors(tmp_path: Path) -> None:
    with pipe() as (reader, writer):
        dst = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
        seal = LayerSealer()
        pump = threading.Thread(target=seal.pump, args=(reader, dst))
        pump.start()
        time.sleep(0.05)
        os.close(reader)
        os.close(dst)
        os.write(writer, PLAINTEXT[:5000])
        os.close(writer)
        pump.join(PATIENCE)
        assert not pump.is_alive()
    written = (tmp_path / "target").read_bytes()
    assert plaintext_of(seal.finalize(), written) == PLAINTEXT[:5000]


@BOTH_WAYS
def test_pump_beside_main_thread_never_waits_for_gil(threads: int, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    progress = Progress()

    def work() -> None:
        with (
            (tmp_path / "sparse").open("rb") as src,
            Path("/dev/null").open("wb") as dst,
            pytest.raises(CancelledError),
        ):
            LayerSealer().pump(src, dst, threads=threads, progress=progress)

    pump = threading.Thread(target=work)
    pump.start()
    wait_until(lambda: progress.done)
    # One call that runs no bytecode, so that it keeps the lock all the time.
    looks = itertools.islice(
        map(operator.attrgetter("done"), itertools.repeat(progress)), 0, 10_000_000, 100_000
    )
    seen = list(looks)
    progress.cancel()
    pump.join()
    assert seen[len(seen) // 2] < seen[-1]


@BOTH_WAYS
def test_pump_memory_does_not_grow_with_layer(threads: int, tmp_path: Path) -> None:
    size = 200 << 20
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(size)
    code = (
        "import os, re, sys; from pathlib import Path; from coco_kp._native import LayerSealer;"
        "src = os.open(sys.argv[1], os.O_RDONLY); dst = os.open('/dev/null', os.O_WRONLY);"
        f"assert LayerSealer().pump(src, dst, threads={threads}) == {size};"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "sparse"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) * 1024 < 64 << 20
