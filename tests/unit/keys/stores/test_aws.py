from __future__ import annotations

import logging
import socket
import ssl
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from coco_kp.deadline import within
from coco_kp.errors import (
    CocoKpError,
    InputError,
    KekError,
    RefusedError,
    RemoteError,
    UnreachableError,
)
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.stores.aws_service import AwsService
from coco_kp.keys.stores.interface import CiphertextError, CloudKey, Store
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from tests.sim.http_server import BreakOff, Reply, http_server
from tests.support.abandoned import await_abandoned
from tests.support.connections import connections_to
from tests.support.traces import traces
from tests.unit.keys.stores.scripted_aws import ScriptedAws, ok, refused

if TYPE_CHECKING:
    from types_boto3_kms.client import KMSClient

KEK = bytes(range(100, 132))
ARN = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SUBJECT = "AWS KMS in eu-central-1 did not decrypt with 'alias/app': "
DENIAL = (
    "User: arn:aws:iam::111122223333:user/ci is not authorized to perform: kms:Decrypt on this "
    "resource"
)


def key(uri: str = "awskms:///alias/app") -> CloudKey:
    opened = open_wrapping_key(parse_wrapping_reference(uri))
    assert isinstance(opened, CloudKey)
    return opened


def secret(query: str = "") -> Store:
    return open_store(parse_kek_reference(f"aws-sm:///app/kek{query}"))


def refusal(kind: type[CocoKpError], uri: str = "awskms:///alias/app") -> CocoKpError:
    with pytest.raises(kind) as error:
        key(uri).decrypt(b"blob", {})
    assert type(error.value) is kind
    return error.value


def test_closed_service_leaves_no_connection_to_aws(aws: ScriptedAws) -> None:
    aws.on("Decrypt", ok(Plaintext=b64encode(KEK).decode()))
    held: list[object] = []  # the collector would end the connections of one that nobody has

    def decrypt(client: KMSClient) -> bytes:
        held.append(client)
        return client.decrypt(CiphertextBlob=b"blob")["Plaintext"]

    service: AwsService[KMSClient] = AwsService("AWS KMS", "kms", {})
    for _ in range(2):  # one that was closed may be used again
        assert service.ask("decrypt", decrypt) == KEK
        assert connections_to(aws.url) == 1
        service.close()
        assert connections_to(aws.url) == 0


@pytest.mark.parametrize(
    ("code", "kind", "words", "hint"),
    [
        ("DisabledException", KekError, "the key is disabled", "aws kms enable-key"),
        ("KMSInvalidStateException", KekError, "the key's state", "cancel-key-deletion"),
        ("NotFoundException", KekError, "there is no such key", "keys and aliases are of one"),
        ("InvalidKeyUsageException", KekError, "not a symmetric one", "SYMMETRIC_DEFAULT"),
        ("UnsupportedOperationException", KekError, "not a symmetric one", "SYMMETRIC_DEFAULT"),
        (
            "InvalidCiphertextException",
            CiphertextError,
            "another encryption context",
            "context=NAME",
        ),
        ("IncorrectKeyException", CiphertextError, "encrypted by another key", "name the key"),
        ("KeyUnavailableException", RemoteError, "cannot be used at this time", "try again"),
        ("UnrecognizedClientException", RemoteError, "does not accept the cred", "AWS_PROFILE"),
        ("InvalidSignatureException", RemoteError, "does not accept the cred", "AWS_PROFILE"),
        ("ExpiredTokenException", RemoteError, "the credentials have expired", "get new ones"),
        ("RequestExpired", RemoteError, "the request has expired", "check the clock"),
        ("ThrottlingException", RemoteError, "throttled: too many requests", "try again later"),
        ("KMSInternalException", RemoteError, "AWS failed", "try again later"),
    ],
)
def test_refusal_of_kms_has_its_own_words_and_way_out(
    aws: ScriptedAws, code: str, kind: type[CocoKpError], words: str, hint: str
) -> None:
    aws.on("Decrypt", refused(code, "no word of this"))
    error = refusal(kind)
    assert error.message.startswith(SUBJECT)
    assert words in error.message
    assert "no word of this" not in error.message
    assert hint in error.hint


def test_denied_access_quotes_who_may_not_do_what(aws: ScriptedAws) -> None:
    aws.on("Decrypt", refused("AccessDeniedException", DENIAL))
    error = refusal(RemoteError)
    assert error.message == f"{SUBJECT}access denied ('{DENIAL}')"
    assert "policy" in error.hint


def test_unknown_refusal_is_quoted_without_keys(aws: ScriptedAws) -> None:
    aws.on("Decrypt", refused("NewException", f"of {b64encode(KEK).decode()} \x1b[31m"))
    error = refusal(RemoteError)
    assert error.message == (
        f"{SUBJECT}AWS says 'NewException' ('of (what looks like a key) ?[31m')"
    )


@pytest.mark.parametrize("operation", ["CreateSecret", "Encrypt"])
def test_refusal_of_what_carries_a_key_is_not_quoted(aws: ScriptedAws, operation: str) -> None:
    aws.on(operation, refused("NewException", f"{list(KEK)}"))
    with pytest.raises(RemoteError) as error:
        secret().keep(KEK) if operation == "CreateSecret" else key().encrypt(KEK, {})
    assert error.value.message.endswith("AWS says 'NewException'")


def test_throttled_request_is_repeated_twice_and_no_more(aws: ScriptedAws) -> None:
    aws.on("Decrypt", refused("ThrottlingException"))
    refusal(RemoteError)
    assert len(aws.requests) == 3


@pytest.mark.parametrize(
    ("code", "kind", "words", "hint"),
    [
        ("ResourceNotFoundException", KekError, "there is no such secret", "name and region"),
        ("InvalidRequestException", KekError, "about to be deleted", "restore-secret"),
        ("DecryptionFailure", RemoteError, "protects the secret could not be used", "kms:Decrypt"),
        ("AccessDeniedException", RemoteError, "access denied", "policy"),
    ],
)
def test_refusal_of_secrets_manager_has_its_own_words_and_way_out(
    aws: ScriptedAws, code: str, kind: type[CocoKpError], words: str, hint: str
) -> None:
    aws.on("GetSecretValue", refused(code))
    with pytest.raises(kind) as error:
        secret().fetch()
    subject = "AWS Secrets Manager in eu-central-1 did not read 'app/kek': "
    assert error.value.message.startswith(subject)
    assert words in error.value.message
    assert hint in error.value.hint


def test_secret_that_is_taken_is_never_replaced(aws: ScriptedAws) -> None:
    aws.on("CreateSecret", refused("ResourceExistsException"))
    with pytest.raises(RefusedError, match="a key is never replaced"):
        secret().keep(KEK)
    assert [one.headers["X-Amz-Target"] for one in aws.requests] == ["secretsmanager.CreateSecret"]


def test_secret_that_holds_another_key_than_was_written_is_an_error(aws: ScriptedAws) -> None:
    aws.on("CreateSecret", ok(Name="app/kek"))
    aws.on("GetSecretValue", ok(SecretBinary=b64encode(bytes(32)).decode()))
    with pytest.raises(KekError, match="holds another key than was written"):
        secret().keep(KEK)


def test_secret_that_cannot_be_read_back_was_written(aws: ScriptedAws) -> None:
    aws.on("CreateSecret", ok(Name="app/kek"))
    aws.on("GetSecretValue", refused("AccessDeniedException"))
    with pytest.raises(RemoteError, match="^the key was written, and could not be read back: "):
        secret().keep(KEK)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("aws-sm:///app/kek?stage=OLD", "a new secret has the stage AWSCURRENT only"),
        (
            "aws-sm:///arn:aws:secretsmanager:us-west-2:111122223333:secret:app-AbCdEf",
            "a new secret cannot be created under an ARN",
        ),
    ],
)
def test_secret_that_cannot_be_new_is_not_created(
    aws: ScriptedAws, reference: str, message: str
) -> None:
    with pytest.raises(InputError) as error:
        open_store(parse_kek_reference(reference)).keep(KEK)
    assert error.value.message == message
    assert aws.requests == []


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (BreakOff(), UnreachableError, "the connection was closed or did not speak HTTP"),
        (Reply(200, {}, b"<html>"), RemoteError, "Plaintext"),
        (ok(Plaintext="A"), RemoteError, "what answers there does not speak AWS's protocol"),
        (ok(Plaintext=[1]), RemoteError, "what answers there does not speak AWS's protocol"),
        (ok(), RemoteError, "AWS KMS answered without Plaintext"),
        (Reply(502, {}, b"<html>"), RemoteError, "AWS says '502'"),
    ],
)
def test_answer_that_is_none_of_aws_is_an_error(
    aws: ScriptedAws, answer: Reply | BreakOff, kind: type[CocoKpError], words: str
) -> None:
    aws.on("Decrypt", answer)
    assert words in refusal(kind).message


def test_answer_that_trickles_is_given_up(aws: ScriptedAws) -> None:
    body = ok(Plaintext=b64encode(KEK).decode()).body
    aws.on("Decrypt", Reply(200, {}, body, delay=0.03))
    with within(0.5):
        assert refusal(UnreachableError).message == f"{SUBJECT}no answer in time"
    await_abandoned()


def test_region_of_arn_goes_before_that_of_settings(aws: ScriptedAws) -> None:
    aws.on("Decrypt", ok(Plaintext=b64encode(KEK).decode()))
    assert key(f"awskms:///{ARN}").region == "us-west-2"
    assert key(f"awskms:///{ARN}").decrypt(b"blob", {}) == KEK
    assert "/us-west-2/kms/aws4_request" in aws.requests[0].headers["Authorization"]


def test_missing_region_names_ways_to_set_it(
    aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    error = refusal(InputError)
    assert error.message == "no region is set for AWS KMS"
    assert error.hint == "set AWS_REGION, or name it by its whole ARN"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert key().region == "us-east-2"
    assert aws.requests == []


def test_missing_credentials_name_ways_to_them(
    aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    error = refusal(KekError)
    assert error.message == f"{SUBJECT}there are no AWS credentials"
    assert "AWS_PROFILE" in error.hint
    assert aws.requests == []


def test_half_of_credentials_is_told(aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refusal(KekError)
    assert error.message == f"{SUBJECT}a part of the AWS credentials is missing"
    assert aws.requests == []


def test_unknown_profile_is_named(aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    error = refusal(InputError)
    assert error.message == (
        "the settings of AWS cannot be used: 'The config profile (nobody) could not be found'"
    )
    assert aws.requests == []


def test_endpoint_that_is_not_there_is_unreachable(
    aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # it has the port, and does not listen
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        error = refusal(UnreachableError)
    assert error.message == f"{SUBJECT}connection refused"
    assert "nothing listens there" in error.hint
    assert aws.requests == []


def test_endpoint_in_reference_means_https_of_a_trusted_authority(
    aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    aws.on("Decrypt", ok(Plaintext=b64encode(KEK).decode()))
    with http_server(aws.answer, tls=context) as url:
        uri = f"awskms://{url.removeprefix('https://')}/alias/app"
        error = refusal(RemoteError, uri)
        assert "the server's certificate is not trusted" in error.message
        assert "AWS_CA_BUNDLE" in error.hint
        assert aws.requests == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        assert key(uri).decrypt(b"blob", {}) == KEK


def test_plain_http_beyond_this_machine_is_refused(
    aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://kms.example")
    wrapping = key()
    for _ in range(2):  # the second use, too
        with pytest.raises(RefusedError) as error:
            wrapping.encrypt(KEK, {})
        assert error.value.message == (
            "the AWS endpoint 'http://kms.example' is plain http: anyone on the way can read keys"
        )
        assert error.value.hint == "use https in AWS_ENDPOINT_URL"
    assert aws.requests == []


def test_proxy_gets_no_request_for_this_machine(
    aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    aws.on("Decrypt", ok(Plaintext=b64encode(KEK).decode()))
    assert key().decrypt(b"blob", {}) == KEK


def test_context_of_call_that_contradicts_reference_is_refused(aws: ScriptedAws) -> None:
    with pytest.raises(InputError) as error:
        key("awskms:///alias/app?context=name=a").encrypt(KEK, {"name": "b"})
    assert error.value.message == "the encryption context has 'name' with two values"
    assert aws.requests == []


def test_re_encryption_across_regions_or_endpoints_is_refused(aws: ScriptedAws) -> None:
    for other, message in (
        (f"awskms:///{ARN}", "KMS re-encrypts within one region"),
        ("awskms://kms.example/alias/app", "KMS re-encrypts at one endpoint"),
    ):
        reference = parse_wrapping_reference(other)
        with pytest.raises(InputError, match=message):
            key().re_encrypt(b"blob", reference)  # type: ignore[arg-type] # it is of AWS
    assert aws.requests == []


@pytest.mark.parametrize("logger", [None, "botocore", "botocore.parsers", "botocore.endpoint"])
def test_log_and_reprs_have_no_secret_whatever_is_logged(
    aws: ScriptedAws, caplog: pytest.LogCaptureFixture, logger: str | None
) -> None:
    """An application with coco-kp in it may log all that libraries say; botocore says all."""
    logging.getLogger("botocore").setLevel(logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger=logger)
    encoded = b64encode(KEK).decode()
    aws.on("CreateSecret", ok(Name="app/kek"))
    aws.on("GetSecretValue", ok(SecretBinary=encoded))
    aws.on("Encrypt", ok(CiphertextBlob="YmxvYg=="))
    aws.on("Decrypt", ok(Plaintext=encoded))
    store, wrapping = secret(), key()
    store.keep(KEK)
    assert wrapping.decrypt(wrapping.encrypt(KEK, {}), {}) == KEK
    assert "DEBUG" in caplog.text
    shown = caplog.text + repr(store) + repr(wrapping) + store.check()
    secrets = traces(KEK) | {b"the secret access key", b"the session token"}
    assert not [one for one in secrets if one in shown.encode()]
