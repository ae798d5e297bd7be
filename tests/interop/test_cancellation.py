"""Calls of the library that end early before real registries: what is left there."""

from __future__ import annotations

from pathlib import Path

import pytest

import coco_kp
from tests.support.access import PLAIN
from tests.support.cancelling import Cancelling
from tests.support.image import tar, write_image

pytestmark = pytest.mark.peer

KEY = coco_kp.KekRecipient(coco_kp.parse_key_id("/default/key/1"), coco_kp.Kek.generate())
OPENERS = [coco_kp.KekOpener(KEY.kek)]


@pytest.mark.parametrize(
    ("moment", "nth"), [("expect", 1), ("advance", 1), ("begin", 2), ("end", 3)]
)
def test_real_registry_has_no_image_of_a_cancelled_encryption_and_takes_the_next(
    registry_address: str, tmp_path: Path, moment: str, nth: int
) -> None:
    plain = write_image(tmp_path / "plain", [tar({f"file{n}": bytes(3 << 20)}) for n in range(3)])
    target = f"docker://{registry_address}/app:1"
    progress = Cancelling(moment, nth)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.encrypt_image(
            plain.reference,
            target,
            [KEY],
            jobs=1,
            destination_access=PLAIN,
            progress=progress,
            cancel=progress.cancel,
        )
    with pytest.raises(coco_kp.RemoteError) as caught:
        coco_kp.inspect_image(target, access=PLAIN)
    assert caught.value.code in {"not-there", "access-denied"}
    made = coco_kp.encrypt_image(plain.reference, target, [KEY], destination_access=PLAIN)
    report = coco_kp.verify_image(target, OPENERS, access=PLAIN)
    assert (report.failure, report.digest) == (None, made.digest)
