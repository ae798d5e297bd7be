"""What the layers and archives of one command unpack to is bounded, wherever it is unpacked."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError
from coco_kp.image.decrypt import decrypt_image
from coco_kp.image.encrypt import encrypt_image
from coco_kp.image.verify import VerificationRules, verify_image
from coco_kp.keys.wrapper import KekOpener, KekRecipient, wrap_options
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.transport import Access
from tests.support.altered import altered, packet
from tests.support.command import KID
from tests.support.documents import TAR, Document, Layer, to_json
from tests.support.image import Image, tar, write_image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZEROS: Final = tar({"zeros": bytes(8 << 20)})
"""gzip makes a thousandth of it, a hundredth is free."""

RECIPIENT: Final = KekRecipient(parse_key_id(KID), Kek(bytes(range(32))))
OPENERS: Final = [KekOpener(RECIPIENT.kek)]


class Images:
    """Images of zeros, and what is done with them; each into a destination of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = write_image(folder / "plain", [ZEROS])
        self.encrypted = Image(folder / "encrypted")
        encrypt_image(self.plain.reference, self.encrypted.reference, [RECIPIENT])

    def target(self) -> str:
        shutil.rmtree(self.folder / "target", ignore_errors=True)
        return f"oci:{self.folder}/target"

    def verify(
        self, image: Image, access: Access, *, jobs: int = 1, allowed: tuple[int, ...] = ()
    ) -> None:
        rules = VerificationRules(allowed_layers=allowed)
        report = verify_image(image.reference, OPENERS, rules=rules, jobs=jobs, access=access)
        if report.failure:
            raise report.failure

    def encrypt(self, source: str, access: Access, **more: object) -> None:
        encrypt_image(source, self.target(), [RECIPIENT], source_access=access, **more)  # type: ignore[arg-type]

    def zstd(self) -> Image:
        return self.other("zstd", zstd.compress(ZEROS), f"{TAR}+zstd")

    def based(self) -> Image:
        """An image with a secret on top of the base, which has the zeros not compressed."""
        write_image(self.folder / "base", [Layer(ZEROS)])
        return write_image(self.folder / "based", [ZEROS, tar({"secret": b""})])

    def without_digest(self) -> Image:
        def forget(document: Document) -> None:
            opened = OPENERS[0].open(
                LayerPacket("provider.attestation-agent", json.dumps(document).encode())
            )
            again = PrivateOptions(opened.symkey, opened.nonce, "").to_json()
            new = wrap_options(RECIPIENT.kek, RECIPIENT.kid, Algorithm.A256GCM, again)
            document.update(json.loads(new.to_json()))

        folder = self.folder / "without"
        return altered(self.encrypted, folder, lambda manifest: packet(manifest, 0, forget))

    def archive(self) -> str:
        """An archive that was compressed as a whole, of an image of zeros that is not."""
        image = write_image(self.folder / "whole", [Layer(ZEROS)])
        file = Path(shutil.make_archive(str(self.folder / "whole"), "tar", image.folder))
        file.write_bytes(gzip.compress(file.read_bytes()))
        return f"oci-archive:{file}"

    def docker_archive(self) -> str:
        """The same, as docker saves it."""
        image = [{"Config": "config", "RepoTags": None, "Layers": ["layer"]}]
        files = {"manifest.json": to_json(image), "config": self.plain.config, "layer": ZEROS}
        file = self.folder / "docker.tar.gz"
        file.write_bytes(gzip.compress(tar(files)))
        return f"docker-archive:{file}"

    def other(self, name: str, data: bytes, media_type: str) -> Image:
        return write_image(self.folder / name, [Layer(data, media_type, ZEROS)])


STEPS: Final[dict[str, Callable[[Images, Access], object]]] = {
    "verify, readable": lambda images, access: images.verify(images.plain, access, allowed=(0,)),
    "verify, one at a time": lambda images, access: images.verify(images.encrypted, access),
    "verify, on several threads": lambda images, access: images.verify(
        images.encrypted, access, jobs=8
    ),
    "encrypt --verify full": lambda images, access: images.encrypt(
        images.plain.reference, access, verify="full"
    ),
    "encrypt zstd": lambda images, access: images.encrypt(images.zstd().reference, access),
    "encrypt --skip-base": lambda images, access: images.encrypt(
        images.based().reference, access, base=f"oci:{images.folder}/base"
    ),
    "decrypt without a recorded digest": lambda images, access: decrypt_image(
        images.without_digest().reference, images.target(), OPENERS, source_access=access
    ),
    "oci-archive": lambda images, access: images.encrypt(images.archive(), access),
    "docker-archive": lambda images, access: images.encrypt(images.docker_archive(), access),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_a_command_unpacks_is_bounded_and_the_user_may_allow_more(
    name: str, tmp_path: Path
) -> None:
    images = Images(tmp_path)
    with pytest.raises(InputError, match="too many for its size") as error:
        STEPS[name](images, Access(max_unpacked=1 << 20))
    assert error.value.code == "content-too-large"
    assert not (tmp_path / "target").exists()
    again = tmp_path / "again"
    again.mkdir()
    STEPS[name](Images(again), Access(max_unpacked=16 << 20))
