"""`verify --target coco` promises what a real guest did with the same images, and no more.

Where the two are known to differ stands in ``guest-differences.json``, which must be exact: a new
difference fails, and so does one that is listed but gone.
"""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import pytest

from coco_kp.errors import CocoKpError
from coco_kp.image.opener import KbcOpener
from coco_kp.image.verify import VerificationRules, verify_image
from coco_kp.kbc import KbcSettings
from coco_kp.model.kbc_spec import parse_kbc_spec
from tests.replay.recording import Recorded, recording
from tests.support.documents import MANIFEST
from tests.support.layout import LayoutWriter

if TYPE_CHECKING:
    from pathlib import Path

GUEST: Final = recording("guest")
CASES: Final = {f"{case['group']}/{case['name']}": case for case in GUEST["cases"]}
DIFFERENCES: Final = recording("guest-differences")
MOST_LAYERS: Final = 16
"""More than any of the images has."""


@pytest.fixture(scope="module")
def guest_keys(tmp_path_factory: pytest.TempPathFactory) -> KbcOpener:
    """The keys that the guest had, found as the guest found them."""
    file = tmp_path_factory.mktemp("guest") / "keys.json"
    file.write_text(json.dumps(GUEST["keys"]))
    file.chmod(0o600)
    return KbcOpener(parse_kbc_spec("offline_fs"), KbcSettings(keys_file=file))


@pytest.mark.parametrize("name", CASES)
def test_verify_given_an_image_that_a_guest_pulled_says_what_the_guest_did(
    name: str, guest_keys: KbcOpener, tmp_path: Path
) -> None:
    case = CASES[name]
    found = finding(write_layout(tmp_path, case), guest_keys)
    agrees = (found is None) == (case["verdict"] == "opened")
    known = DIFFERENCES["false_yes"].get(name) or DIFFERENCES["false_no"].get(name)
    if known:
        assert not agrees, f"agrees with the guest now: take {name!r} from guest-differences.json"
    elif case["verdict"] == "opened":
        assert found is None, "the guest opened it: a false no"
    else:
        assert found is not None, f"the guest refused it: {GUEST['texts'][case['text']]}"


@pytest.mark.parametrize(
    ("kind", "verdict"), [("false_yes", "refused"), ("false_no", "opened")], ids=["yes", "no"]
)
def test_list_of_known_differences_names_only_recorded_cases_each_with_a_reason(
    kind: str, verdict: str
) -> None:
    wrong = [
        name
        for name, reason in DIFFERENCES[kind].items()
        if name not in CASES or CASES[name]["verdict"] != verdict or not reason
    ]
    assert wrong == []


def finding(folder: Path, keys: KbcOpener) -> CocoKpError | None:
    """Return what is wrong with the image in a layout, whose layers may all be readable.

    Guests open A256CTR packets, as whoever asks about such an image has to allow.
    """
    rules = VerificationRules(tuple(range(MOST_LAYERS)), allow_ctr=True, target="coco")
    try:
        return verify_image(f"oci:{folder}", [keys], rules=rules, jobs=1).failure
    except CocoKpError as error:
        return error


def write_layout(folder: Path, case: Recorded) -> Path:
    """Write the image of a case with the blobs that its manifests name, the wrong ones as such."""
    layout = LayoutWriter(folder)
    manifest = (
        case["manifest"].encode() if "manifest" in case else b64decode(case["manifest_base64"])
    )
    children = [child.encode() for child in case.get("manifests", [])]
    own = case.get("blobs", {})
    for digest, blob in (GUEST["blobs"] | own).items():
        if digest in own or any(digest.encode() in each for each in (manifest, *children)):
            file = folder / "blobs" / digest.replace(":", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b64decode(blob))
    for child in children:
        layout.put(MANIFEST, child)
    layout.name(layout.put(case.get("served_as", MANIFEST), manifest))
    return folder
