"""``exec:PROGRAM ARGUMENTS``: a KEK that a program prints, as gcloud, az, kubectl or pass can."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from typing import IO, Final, cast

from coco_kp.deadline import remaining, within
from coco_kp.errors import InputError, KekError
from coco_kp.files import reason
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import ExecReference
from coco_kp.keys.stores.interface import TIMEOUT
from coco_kp.observe import asking
from coco_kp.redact import masked, shown
from coco_kp.values import dataclass

OUTPUT_LIMIT: Final = 4096
"""Bytes that are read of what the program prints, and kept of what it complains of."""

_LOOK: Final = 0.5  # seconds after which it is seen that nobody waits any more


def open_store(reference: ExecReference) -> ExecStore:
    """Return the store."""
    return ExecStore(reference)


@dataclass(frozen=True, slots=True)
class ExecStore:
    """What a program prints. No shell reads its command line, and it can ask for nothing."""

    reference: ExecReference
    seconds: float = TIMEOUT

    @asking("exec")
    def fetch(self) -> bytes:
        """Run the program and return what it prints."""
        try:
            # A session of its own: all that it starts ends with it, and no terminal is at hand.
            process = subprocess.Popen(
                self.reference.arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else "its name cannot be used"
            raise KekError(f"cannot run {self._name}: {why}") from None
        with process:
            try:
                with within(self.seconds):
                    output, complaint = self._read(process)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if status := process.returncode:
            outcome = f"exit code {status}" if status > 0 else f"signal {-status}"
            said = shown(masked(" ".join(complaint.decode(errors="replace").split())))
            raise KekError(f"{self._name} failed ({outcome}): {said}", "run it by itself to see")
        return output

    def keep(self, kek: bytes) -> None:  # noqa: ARG002 (the interface)
        """Refuse: a program prints only."""
        raise InputError("a key cannot be written to exec:", "write it to file:, vault: or aws-sm:")

    def check(self) -> str:
        """Say that it printed a key."""
        return f"a key, {kek_of(self.fetch(), f'the output of {self._name}').fingerprint}"

    def close(self) -> None:
        """No-op: each use runs the program anew."""

    @property
    def _name(self) -> str:
        return f"the program {shown(self.reference.arguments[0])}"

    def _read(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """Read both streams until the program ends, within the bounds of size and time."""
        late = KekError(f"{self._name} did not end in time")
        stdout, stderr = cast("tuple[IO[bytes], IO[bytes]]", (process.stdout, process.stderr))
        output, complaint = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ, output)
            selector.register(stderr, selectors.EVENT_READ, complaint)
            while selector.get_map():
                ready = selector.select(min(remaining(), _LOOK))
                if not ready and not remaining():
                    raise late
                for key, _ in ready:
                    piece = os.read(key.fd, OUTPUT_LIMIT)
                    if not piece:
                        selector.unregister(key.fileobj)
                    key.data.extend(piece)
                if len(output) > OUTPUT_LIMIT:
                    raise KekError(f"{self._name} printed more than {OUTPUT_LIMIT} bytes")
                del complaint[:-OUTPUT_LIMIT]  # the end says why it failed
        try:
            process.wait(remaining())
        except subprocess.TimeoutExpired:
            raise late from None
        return bytes(output), bytes(complaint)
