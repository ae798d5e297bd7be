"""Writing into a KBS, and what it means when it says no."""

from __future__ import annotations

import logging
import os
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
import trustme

from coco_kp.errors import InputError, NotStoredError, RefusedError, RemoteError, UnreachableError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.admin_token import ReadyToken
from coco_kp.kbs.client import Kbs
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.observe import observed_by
from tests.sim.http_server import Reply, Request
from tests.sim.kbs import ADMIN_TOKEN, refusal, simulated_kbs
from tests.support.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.sim.kbs import SimulatedKbs

KID = parse_key_id("kbs:///default/key/1")
PATH = "default/key/1"
POST = f"POST resource/{PATH}"


def test_admin_puts_resource(sim: SimulatedKbs, admin: Admin) -> None:
    key = os.urandom(32)
    admin.put(KID, key)
    assert sim.resources == {PATH: key}
    (request,) = sim.requests
    assert request.headers["Content-Type"] == "application/octet-stream"


def test_admin_list_policies_only_reads(sim: SimulatedKbs, admin: Admin) -> None:
    assert admin.list_policies().refusal is None
    assert [request.method for request in sim.requests] == ["GET"]


def test_admin_keeps_path_prefix_of_kbs_url(sim: SimulatedKbs) -> None:
    """Upstream drops it (docs/protocols.md 6.3, 17)."""
    with Kbs(KbsUrl.parse(f"{sim.url}/team/a")) as kbs, pytest.raises(RemoteError) as refused:
        Admin(kbs, None).put(KID, b"key")
    assert sim.requests[0].path == "/team/a/kbs/v0/resource/default/key/1"
    assert "no KBS answers here: check host, port and path prefix" in refused.value.hint


@pytest.mark.parametrize(
    ("token", "words", "code"),
    [
        # Upstream reports success (docs/protocols.md 6.3, 3).
        (
            ReadyToken.parse(ADMIN_TOKEN[:-1] + "A", "the test"),
            r"\(AdminAuthInitialization 401\): 'Admin access.*hint: .*check the admin token",
            "key-not-stored",
        ),
        (None, r"\(hint: no admin token was sent", "admin-token-missing"),
    ],
)
def test_admin_put_that_kbs_refused_unread_says_that_the_key_is_not_stored(
    kbs: Kbs, token: ReadyToken | None, words: str, code: str
) -> None:
    """Its code was that of any failure of the other side, which says nothing of the key."""
    with pytest.raises(NotStoredError, match=words) as refused:
        Admin(kbs, token).put(KID, b"key")
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("reply", "status", "hint"),
    [
        (Reply(500), "HTTP 500", "the log of the KBS"),
        (Reply(302, {"Location": "/x"}), "HTTP 302", "redirects are not followed"),
        (Reply(413, body=b"payload reached size limit"), "HTTP 413", "payload_request_size"),
        (Reply(201), "HTTP 201", "the log of the KBS"),
        (Reply(401, body=b'{"type":7}'), "HTTP 401", "the log of the KBS"),
        (Reply(401, body=b'["type"]'), "HTTP 401", "the log of the KBS"),
        (Reply(401, body=b"\xff" * 100_000), "HTTP 401", "the log of the KBS"),
        (refusal("New\n Variant"), "HTTP 401", "the log of the KBS"),
        (refusal("NewVariant"), "NewVariant 401", "the log of the KBS"),
        (refusal("JweError", status=418), "JweError 418", "the log of the KBS"),
    ],
)
def test_admin_put_fails_on_any_status_but_200(
    sim: SimulatedKbs, admin: Admin, reply: Reply, status: str, hint: str
) -> None:
    sim.faults[POST] = lambda _: reply
    with pytest.raises(RemoteError, match=rf"\({status}\)") as refused:
        admin.put(KID, b"key")
    assert hint in refused.value.hint
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("variant", ["", "PluginInternalError", "AdminAuthAccess"])
def test_admin_error_does_not_show_key_that_kbs_echoed(
    sim: SimulatedKbs, admin: Admin, variant: str
) -> None:
    key = os.urandom(32)

    def echo(request: Request) -> Reply:
        text = f"{request.body.hex()} {b64encode(request.body).decode()} {list(request.body)}"
        detail = "Role reader not allowed" if variant == "AdminAuthAccess" else text
        return refusal(variant, detail) if variant else Reply(500, body=text.encode())

    sim.faults[POST] = echo
    with pytest.raises(RemoteError) as refused:
        admin.put(KID, key)
    text = str(refused.value)
    assert key.hex() not in text
    assert b64encode(key).decode() not in text
    assert str(list(key))[1:20] not in text
    assert ("Role reader not allowed" in text) == (variant == "AdminAuthAccess")


@pytest.mark.parametrize("form", [bytes.hex, lambda key: b64encode(key).decode()])
def test_admin_error_does_not_show_key_echoed_in_token_refusal(
    sim: SimulatedKbs, admin: Admin, form: Callable[[bytes], str]
) -> None:
    key = os.urandom(32)
    sim.faults[POST] = lambda request: refusal("AdminAuthAccess", f"not {form(request.body)}")
    with pytest.raises(RemoteError, match="characters that look like a key") as refused:
        admin.put(KID, key)
    assert form(key) not in str(refused.value)


def test_admin_put_that_kbs_cannot_store_points_to_store_itself(
    sim: SimulatedKbs, admin: Admin
) -> None:
    sim.faults[POST] = lambda _: refusal("PluginInternalError", "Plugin internal error")
    with pytest.raises(RemoteError, match="PluginInternalError 401") as refused:
        admin.put(KID, b"key")
    assert "AWS, GCP and Aliyun are only read" in refused.value.hint
    assert refused.value.code == "kbs-cannot-store"


def test_admin_replace_stores_over_resource(sim: SimulatedKbs, admin: Admin) -> None:
    admin.put(KID, b"old")
    admin.replace(KID, b"new")
    assert sim.resources == {PATH: b"new"}
    assert [request.method for request in sim.requests] == ["POST", "POST"]


HSM_KID = parse_key_id("kbs+pkcs11:///resource/default/key/1")
HSM_POST, HSM_DELETE = (f"{method} pkcs11/resource/{PATH}" for method in ("POST", "DELETE"))
FAILED = refusal("PluginInternalError", "Plugin internal error")
OTHER = ("default/key/2", b"other")


@pytest.fixture
def hsm(sim: SimulatedKbs) -> list[tuple[str, bytes]]:
    """The objects in the HSM of the KBS, and one of another name."""
    objects = sim.with_pkcs11().objects
    objects.append(OTHER)
    return objects


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_admin_puts_key_into_hsm_and_warns_that_it_will_not_last(
    hsm: list[tuple[str, bytes]], admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    admin.put(HSM_KID, b"key")
    assert hsm == [OTHER, (PATH, b"key")]
    restart, before = warnings(caplog)
    assert restart.startswith(f"the KBS loses '{HSM_KID}' when it restarts")
    assert before.startswith(f"if '{HSM_KID}' had a key before, that is still there")


@pytest.mark.parametrize("before", [0, 1, 3])
def test_admin_replace_deletes_all_keys_of_name_from_hsm_first(
    hsm: list[tuple[str, bytes]], admin: Admin, caplog: pytest.LogCaptureFixture, before: int
) -> None:
    hsm += [(PATH, b"old")] * before
    admin.replace(HSM_KID, b"new")
    assert hsm == [OTHER, (PATH, b"new")]
    (restart,) = warnings(caplog)
    assert restart.startswith(f"the KBS loses '{HSM_KID}' when it restarts")


def test_admin_replace_stores_nothing_when_kbs_refuses_to_delete(
    sim: SimulatedKbs, hsm: list[tuple[str, bytes]], admin: Admin
) -> None:
    hsm.append((PATH, b"old"))
    sim.faults[HSM_DELETE] = lambda _: refusal("AdminAuthInitialization", "no")
    with pytest.raises(RemoteError, match=r"refused to delete .* \(AdminAuthInitialization 401\)"):
        admin.replace(HSM_KID, b"new")
    assert hsm == [OTHER, (PATH, b"old")]


def test_admin_replace_without_plugin_says_so(admin: Admin) -> None:
    with pytest.raises(RemoteError, match="PluginNotFound 404") as refused:
        admin.replace(HSM_KID, b"new")
    assert "runs without this plugin" in refused.value.hint


def test_admin_replace_does_not_delete_for_ever(sim: SimulatedKbs, admin: Admin) -> None:
    sim.faults[HSM_DELETE] = lambda _: Reply()
    with pytest.raises(RemoteError, match="goes on deleting") as refused:
        admin.replace(HSM_KID, b"new")
    assert "check host, port" in refused.value.hint
    assert sim.calls(HSM_DELETE) == 100
    assert not sim.calls(HSM_POST)


@pytest.mark.parametrize(("before", "lost"), [(0, ""), (2, "; what it had there is deleted (2")])
def test_admin_replace_that_fails_says_what_is_deleted(
    sim: SimulatedKbs, hsm: list[tuple[str, bytes]], admin: Admin, before: int, lost: str
) -> None:
    hsm += [(PATH, b"old")] * before
    sim.faults[HSM_POST] = lambda _: FAILED
    with pytest.raises(RemoteError, match="refused to register") as refused:
        admin.replace(HSM_KID, b"new")
    assert refused.value.message.partition("(PluginInternalError 401)")[2].startswith(lost)
    assert ("deleted" in refused.value.message) == bool(lost)
    assert "the HSM of the KBS did not take it" in refused.value.hint


def test_admin_put_is_retried_after_transient_failure(sim: SimulatedKbs, admin: Admin) -> None:
    """Storing the same key twice is harmless."""
    replies = iter([Reply(503), None])
    sim.faults[POST] = lambda _: next(replies)
    admin.put(KID, b"key")
    assert sim.calls(POST) == 2
    assert sim.resources == {PATH: b"key"}


@pytest.mark.parametrize(
    ("kid", "reason"),
    [
        ("kbs+external:///a/b/c", "with its plugins 'resource' and 'pkcs11' only"),
        ("kbs+pkcs11:///a/b/c", "under resource/<repository>/<type>/<tag>"),
        ("kbs+pkcs11:///wrap-key", "under resource/<repository>/<type>/<tag>"),
        ("kbs+pkcs11:///a/b/c/d", "under resource/<repository>/<type>/<tag>"),
        ("kbs+pkcs11:///resource/a/b/c/d", "under resource/<repository>/<type>/<tag>"),
        ("kbs+pkcs11:///resource/a/b/c?x=y", "it has a query"),
        ("kbs+pkcs11://other.example/resource/a/b/c", "names another KBS"),
        ("kbs:///a/b/c?x=y", "it has a query"),
        ("kbs://other.example/a/b/c", "names another KBS"),
        ("kbs://127.0.0.1/a/b/c", "names another KBS"),
    ],
)
def test_admin_refuses_key_id_that_this_kbs_cannot_hold(
    sim: SimulatedKbs, admin: Admin, kid: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        admin.put(parse_key_id(kid), b"key")
    assert not sim.requests


def test_admin_hint_for_key_id_of_another_kbs_keeps_plugin(admin: Admin) -> None:
    with pytest.raises(InputError) as refused:
        admin.put(parse_key_id("kbs+pkcs11://other.example/resource/a/b/c"), b"key")
    assert refused.value.hint == "leave the address out: kbs+pkcs11:///resource/a/b/c"


def test_admin_accepts_key_id_with_address_of_this_kbs(sim: SimulatedKbs, admin: Admin) -> None:
    address = sim.url.removeprefix("http://")
    admin.put(parse_key_id(f"kbs://{address}/a/b/c"), b"key")
    assert sim.resources == {"a/b/c": b"key"}


def test_kbs_beyond_loopback_is_refused_over_plain_http_before_anything_is_sent() -> None:
    with pytest.raises(RefusedError) as refused:
        Kbs(KbsUrl.parse("http://192.0.2.1:8080"))
    assert "plain http" in refused.value.message
    assert refused.value.code == "kbs-without-tls"


def test_admin_uses_plain_http_beyond_loopback_when_allowed() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    url = KbsUrl.parse("http://192.0.2.1:8080")
    with Kbs(url, insecure_http=True, deadline=0.5) as kbs, pytest.raises(UnreachableError):
        Admin(kbs, None).put(KID, b"key")


def test_admin_trusts_private_certificate_authority_only_when_given(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(ca_file))
    token = ReadyToken.parse(ADMIN_TOKEN, "the test")
    with simulated_kbs(context) as sim:
        url = KbsUrl.parse(sim.url)
        with Kbs(url) as kbs, pytest.raises(RemoteError, match="certificate is not trusted"):
            Admin(kbs, token).put(KID, b"key")
        assert not sim.resources
        with Kbs(url, ca_file=ca_file) as kbs:
            Admin(kbs, token).put(KID, b"key")
        assert sim.resources == {PATH: b"key"}


def test_each_request_to_a_kbs_is_reported_with_how_it_ended(
    sim: SimulatedKbs, admin: Admin
) -> None:
    seen = Events()
    with observed_by(seen):
        admin.put(KID, os.urandom(32))
        sim.faults[POST] = lambda _: refusal("InsufficientRole")
        with pytest.raises(RemoteError):
            admin.put(KID, os.urandom(32))
        nobody = Admin(Kbs(KbsUrl.parse("http://127.0.0.1:1")), None)
        with pytest.raises(UnreachableError):
            nobody.list_policies()
    assert seen.outcomes("kbs") == ["ok", "refused", "unreachable"]
