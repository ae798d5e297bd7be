"""The registry of a case serves the case's layouts, and answers as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import urllib3

from tests.cases.registry import REF_NAME, RegistrySpec
from tests.sim.registry import serve
from tests.support.documents import INDEX, MANIFEST, sha256
from tests.support.layout import LayoutWriter


@pytest.mark.parametrize("asked", ["x", "index", "image"])
def test_layout_is_served_by_name_and_by_digest(asked: str, tmp_path: Path) -> None:
    layout = LayoutWriter(tmp_path / "src")
    image = layout.put_manifest([], [])
    missing = {"mediaType": MANIFEST, "digest": sha256(b"elsewhere"), "size": 9}
    index = layout.put_index([image, missing])
    layout.name({**index, "annotations": {REF_NAME: "x"}})
    digest = (image if asked == "image" else index)["digest"]
    name = asked if asked == "x" else digest
    with serve(RegistrySpec(repositories={"t/app": "src"}).load(tmp_path)) as address:
        base = f"http://{address}/v2/t/app"
        answer = urllib3.request("GET", f"{base}/manifests/{name}")
        blob = urllib3.request("GET", f"{base}/blobs/{digest}")
        gone = urllib3.request("GET", f"{base}/manifests/{missing['digest']}")
    assert answer.headers["Content-Type"] == (MANIFEST if asked == "image" else INDEX)
    assert sha256(answer.data) == digest == sha256(blob.data)
    assert gone.status == 404


def test_login_is_demanded_with_each_challenge_in_a_header_of_its_own(tmp_path: Path) -> None:
    spec = RegistrySpec(login="user:pass:word", challenges=["Negotiate", 'Basic realm="r"'])
    with serve(spec.load(tmp_path)) as address:
        refused = urllib3.request("GET", f"http://{address}/v2/")
        headers = urllib3.make_headers(basic_auth="user:pass:word")
        allowed = urllib3.request("GET", f"http://{address}/v2/", headers=headers)
    assert refused.status == 401
    assert refused.headers.getlist("WWW-Authenticate") == ["Negotiate", 'Basic realm="r"']
    assert allowed.status == 200


@pytest.mark.parametrize(
    ("spec", "patched", "stored"),
    [
        (RegistrySpec(), 202, 201),
        (RegistrySpec(patch=204), 204, 201),
        (RegistrySpec(put_manifest=202), 202, 202),
    ],
)
def test_success_has_the_status_that_the_case_names(
    spec: RegistrySpec, patched: int, stored: int, tmp_path: Path
) -> None:
    with serve(spec.load(tmp_path)) as address:
        base = f"http://{address}/v2/t/app"
        place = urllib3.request("POST", f"{base}/blobs/uploads/").headers["Location"]
        patch = urllib3.request("PATCH", f"http://{address}{place}", body=b"part")
        headers = {"Content-Type": MANIFEST}
        put = urllib3.request("PUT", f"{base}/manifests/x", body=b"{}", headers=headers)
    assert (patch.status, put.status) == (patched, stored)
