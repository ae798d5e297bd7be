"""What is seen to be left to do of a line, from what is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import pytest

import coco_kp
from coco_kp.fleet.look import look_to_encrypt, open_image
from coco_kp.image.plan import plan_encryption
from coco_kp.image.progress import Progress
from coco_kp.image.tree import read_tree
from coco_kp.image.work import Work
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import open_source
from tests.support.documents import TAR, Layer
from tests.support.image import tar, write_image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def test_look_raises_what_ends_the_work_while_it_reads_a_layer(tmp_path: Path) -> None:
    """Not that the layer holds another content."""
    key = coco_kp.KekRecipient(coco_kp.parse_key_id("/default/key/1"), coco_kp.Kek.generate())
    archive = tar({"a": b"1" * 1000})
    plain = write_image(
        tmp_path / "plain", [Layer(zstd.compress(archive), f"{TAR}+zstd", archive)]
    ).reference
    encrypted = f"oci:{tmp_path}/encrypted"
    coco_kp.encrypt_image(plain, encrypted, [key])

    class Ended(Progress):
        def begin(self, *_: object) -> NoReturn:
            raise coco_kp.CancelledError("interrupted")

    with (
        open_source(parse_image_reference(plain)) as source,
        open_source(parse_image_reference(encrypted)) as destination,
    ):
        plan = plan_encryption(read_tree(source), coco_kp.Rules())
        opener = coco_kp.KekOpener(key.kek)
        there = open_image(destination, read_tree(destination), [opener], [key])
        assert look_to_encrypt(plan, there, [key], Work(Progress())).todo == "nothing"
        with pytest.raises(coco_kp.CancelledError, match="interrupted"):
            look_to_encrypt(plan, there, [key], Work(Ended()))
