"""`verify --target coco` promises what a real guest did with the same images, and no more.

Where the two differ stands in ``guest-differences.json``, each with the reason, and nothing else
may differ: a new difference fails, and so does one that is listed but gone.
"""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import pytest

from coco_kp.errors import CocoKpError
from coco_kp.image.opener import KbcOpener
from coco_kp.image.verify import VerificationRules, verify_image
from coco_kp.model.kbc_spec import parse_kbc_spec
from coco_kp.unpacking import ContentCheck, Unpacking
from tests.replay.recording import Recorded, recording
from tests.support.documents import MANIFEST
from tests.support.kbcs import kbcs_with
from tests.support.layout import LayoutWriter

if TYPE_CHECKING:
    from pathlib import Path

GUEST: Final = recording("guest")
CASES: Final = {f"{case['group']}/{case['name']}": case for case in GUEST["cases"]}
UNPACKED: Final = {f"unpacking/{case['name']}": case for case in recording("guest-tar")["cases"]}
DIFFERENCES: Final = recording("guest-differences")
MOST_LAYERS: Final = 16
"""More than any of the images has."""


@pytest.fixture(scope="module")
def guest_keys(tmp_path_factory: pytest.TempPathFactory) -> KbcOpener:
    """The keys that the guest had, found as the guest found them."""
    file = tmp_path_factory.mktemp("guest") / "keys.json"
    file.write_text(json.dumps(GUEST["keys"]))
    file.chmod(0o600)
    return KbcOpener(parse_kbc_spec("offline_fs"), kbcs_with(file))


@pytest.mark.parametrize("name", CASES)
def test_verify_given_an_image_that_a_guest_pulled_says_what_the_guest_did(
    name: str, guest_keys: KbcOpener, tmp_path: Path
) -> None:
    case = CASES[name]
    found = finding(write_layout(tmp_path, case), guest_keys)
    text = GUEST["texts"][case["text"]] if case["verdict"] == "refused" else ""
    compare(name, found, case["verdict"], text)


@pytest.mark.parametrize("name", UNPACKED)
@pytest.mark.parametrize("step", [1 << 20, 700, 1])
def test_verify_given_a_layer_that_a_guest_unpacked_says_what_the_guest_did(
    name: str, step: int
) -> None:
    case = UNPACKED[name]
    compare(name, unpacking_finding(b64decode(case["layer_base64"]), step), case["verdict"])


@pytest.mark.parametrize(
    ("kind", "verdict"), [("not_to_be_promised", "refused"), ("stricter_on_purpose", "opened")]
)
def test_list_of_differences_names_only_recorded_cases_each_with_a_reason(
    kind: str, verdict: str
) -> None:
    cases = CASES | UNPACKED
    wrong = [
        name
        for name, reason in DIFFERENCES[kind].items()
        if name not in cases or cases[name]["verdict"] != verdict or len(reason.split()) < 8
    ]
    assert wrong == []


def test_guest_is_promised_nothing_but_its_platform_without_reason() -> None:
    assert {name.partition("/")[0] for name in DIFFERENCES["not_to_be_promised"]} == {"index"}


def compare(name: str, found: CocoKpError | None, verdict: str, text: str = "") -> None:
    """Fail unless the finding agrees with the guest's verdict, or is listed not to."""
    agrees = (found is None) == (verdict == "opened")
    if any(name in listed for listed in DIFFERENCES.values()):
        assert not agrees, f"agrees with the guest now: take {name!r} from guest-differences.json"
    elif verdict == "opened":
        assert found is None, "the guest opened it: a false no"
    else:
        assert found is not None, f"the guest refused it: a false yes: {text}"


def unpacking_finding(layer: bytes, step: int) -> CocoKpError | None:
    """Return what is wrong with a layer, gzip, that comes in pieces of ``step`` bytes."""
    check = ContentCheck("gzip", "sha256", Unpacking(), guest=True)
    try:
        for start in range(0, len(layer), step):
            check.update(memoryview(layer)[start : start + step])
        return check.finish()[1]
    except CocoKpError as error:
        return error


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
