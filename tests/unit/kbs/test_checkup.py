"""What ``coco-kp doctor`` asks a KBS."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import RemoteError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.checkup import check_admin, check_clock, check_protocol, reach
from coco_kp.kbs.client import Answer
from tests.sim.http_server import Reply
from tests.sim.kbs import refusal

if TYPE_CHECKING:
    from coco_kp.kbs.client import Kbs
    from tests.sim.kbs import SimulatedKbs


def test_reach_recognises_kbs_and_refuses_other_servers(sim: SimulatedKbs, kbs: Kbs) -> None:
    sim.faults["POST auth"] = lambda _: refusal("AttestationError", "deserialize Request")
    assert reach(kbs).headers["Date"]
    sim.faults["POST auth"] = lambda _: Reply(404)
    with pytest.raises(RemoteError, match="refused to answer as a KBS does") as refused:
        reach(kbs)
    assert "no KBS answers here" in refused.value.hint


def test_check_protocol_reports_version_of_each_side(sim: SimulatedKbs, kbs: Kbs) -> None:
    assert check_protocol(kbs) == "version 0.4.0 on both sides"
    sim.version = "0.5.0"
    with pytest.raises(RemoteError, match=r"expect =0.5.0 while the request is 0.4.0"):
        check_protocol(kbs)


def dated(skew: float) -> Answer:
    return Answer(None, b"", {"Date": email.utils.formatdate(time.time() + skew, usegmt=True)})


@pytest.mark.parametrize("skew", [-30.0, 0.0, 30.0])
def test_check_clock_accepts_small_skew(skew: float) -> None:
    assert check_clock(dated(skew)) == "within 60 s of this machine's"


@pytest.mark.parametrize(("skew", "words"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_check_clock_reports_large_skew(skew: float, words: str) -> None:
    with pytest.raises(RemoteError, match=rf"is (3599|3600|3601) s {words} this machine's"):
        check_clock(dated(skew))


@pytest.mark.parametrize(
    "headers",
    [
        *({}, {"Date": ""}, {"Date": "yesterday"}),
        {"Date": f"Wed, 21 Oct {10**20} 07:28:00 GMT"},
    ],
)
def test_check_clock_reports_missing_or_invalid_date(headers: dict[str, str]) -> None:
    with pytest.raises(RemoteError, match="does not tell its time"):
        check_clock(Answer(None, b"", headers))


def test_check_admin_reports_whether_token_is_accepted_or_needed(
    sim: SimulatedKbs, admin: Admin, kbs: Kbs
) -> None:
    assert check_admin(admin) == "that of the test is accepted"
    with pytest.raises(RemoteError, match="refused to accept the admin token"):
        check_admin(Admin(kbs, None))
    sim.faults["GET resource-policy"] = lambda _: Reply(body=b"[]")
    assert check_admin(Admin(kbs, None)) == "none is needed"
    assert {request.method for request in sim.requests} == {"GET"}
