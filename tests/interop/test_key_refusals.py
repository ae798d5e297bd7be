"""Keys that cannot be had: ``encrypt`` says why, ends with the right code, and writes nothing."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pkcs11
import pytest

from coco_kp.keys.stores import pkcs11_token
from tests.peers.aws import ALIAS, CREDENTIALS, RunningAws
from tests.peers.softhsm import KEK, MASTER, PIN, RSA, TOKEN, SoftHsm
from tests.sim.aws import RefusingAws, refusing_aws
from tests.sim.vault import ROOT_TOKEN, SimulatedVault, Token, errors
from tests.support.command import KID, Command, Outcome, files
from tests.support.image import write_image
from tests.support.traces import traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.image import Image
    from tests.support.key import Key

pytestmark = pytest.mark.peer

EXTERNAL: Final = "kbs+external:///coco-kp/prod"
WRONG_PIN: Final = "918273"
EXPIRED: Final = "hvs.CAESIexpired"


@pytest.fixture
def refused(image: Image, tmp_path: Path, command: Command) -> Callable[..., Outcome]:
    """Runs ``encrypt`` with these options, which must fail: terse, and at its most verbose.

    At the destination there is another image, which stays as it is; nothing else appears, and no
    secret shows.
    """
    out = tmp_path / "out"
    write_image(out / "image", [b"an older image"])

    def run(code: int, says: str, *options: object, secrets: tuple[bytes, ...] = ()) -> Outcome:
        before = files(out)
        target = f"oci:{out}/image"
        terse = command("encrypt", image.reference, target, *options, ok=False)
        verbose = command("encrypt", image.reference, target, *options, "-vv", ok=False)
        assert files(out) == before
        assert (terse.code, verbose.code) == (code, code), terse.err
        assert says in terse.err
        assert says in verbose.err
        printed = "".join((terse.out, terse.err, verbose.out, verbose.err)).encode()
        known = [PIN, WRONG_PIN, ROOT_TOKEN, EXPIRED, *CREDENTIALS]
        kept = {*(word.encode() for word in known), *(t for s in secrets for t in traces(s))}
        assert not [secret for secret in kept if secret in printed]
        return terse

    return run


def fetched(uri: str) -> tuple[str, ...]:
    return ("--kek-from", uri, "--keyid", KID)


def external(uri: str) -> tuple[str, ...]:
    return ("--wrap-with", uri, "--keyid", EXTERNAL)


# AWS.


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingAws]:
    """An AWS that refuses as it is told, and nobody else's in reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with refusing_aws() as running:
        for name, value in RunningAws(running.endpoint).environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        ("AccessDeniedException", 6, "access denied"),
        ("ThrottlingException", 6, "throttled: too many requests"),
        ("ExpiredTokenException", 6, "the credentials have expired"),
        ("UnrecognizedClientException", 6, "AWS does not accept the credentials"),
        ("InternalFailure", 6, "AWS failed"),
        ("DisabledException", 4, "the key is disabled"),
        ("KMSInvalidStateException", 4, "the key's state does not allow it"),
        ("NotFoundException", 4, "there is no such key"),
    ],
)
@pytest.mark.parametrize("keyid", [(), ("--keyid", EXTERNAL)], ids=["kms", "external"])
def test_kms_that_refuses(
    aws: RefusingAws,
    refused: Callable[..., Outcome],
    error: str,
    code: int,
    says: str,
    keyid: tuple[str, ...],
) -> None:
    aws.refusals["Encrypt"] = error
    assert "\nhint: " in refused(code, says, "--wrap-with", f"awskms:///{ALIAS}", *keyid).err
    assert set(aws.operations) == {"Encrypt"}


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        ("AccessDeniedException", 6, "access denied"),
        ("ThrottlingException", 6, "throttled: too many requests"),
        ("ResourceNotFoundException", 4, "there is no such secret"),
    ],
)
def test_secrets_manager_that_refuses(
    aws: RefusingAws, refused: Callable[..., Outcome], error: str, code: int, says: str
) -> None:
    aws.refusals["GetSecretValue"] = error
    assert "\nhint: " in refused(code, says, *fetched("aws-sm:///app")).err


def test_aws_without_credentials(
    aws: RefusingAws, refused: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(4, "a part of the AWS credentials is missing", "--wrap-with", "awskms:///alias/a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    refused(4, "there are no AWS credentials", "--wrap-with", "awskms:///alias/a")
    refused(4, "there are no AWS credentials", *fetched("aws-sm:///app"))
    assert not aws.operations


def test_aws_that_is_not_there(
    aws: RefusingAws, refused: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    refused(6, "AWS KMS in us-east-1 did not encrypt", "--wrap-with", "awskms:///alias/a")
    assert not aws.operations


def test_disabled_key_of_kms(local_kms: RunningAws, refused: Callable[..., Outcome]) -> None:
    for more in ((), ("--keyid", EXTERNAL)):
        refused(4, "the key is disabled", "--wrap-with", f"awskms:///{local_kms.disabled}", *more)


def test_key_of_another_region(
    kms: RunningAws, refused: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    arn = f"arn:aws:kms:eu-west-3:111122223333:key/{kms.key}"
    outcome = refused(4, "there is no such key", "--wrap-with", f"awskms:///{arn}")
    assert "AWS KMS in eu-west-3 did not encrypt" in outcome.err
    assert "keys and aliases are of one region" in outcome.err


@pytest.mark.usefixtures("local_kms")
def test_key_that_opens_nothing_of_kms(
    local_kms: RunningAws, image: Image, tmp_path: Path, command: Command
) -> None:
    with closing(local_kms.kms()) as client:
        other = client.create_key()["KeyMetadata"]["KeyId"]
    encrypted, never = f"oci:{tmp_path}/e", tmp_path / "never"
    command("encrypt", image.reference, encrypted, "--wrap-with", f"awskms:///{ALIAS}")
    wrong = ("--wrap-with", f"awskms:///{other}")
    outcome = command("decrypt", encrypted, f"oci:{never}", *wrong, ok=False)
    assert outcome.code == 4
    assert "another key" in outcome.err
    assert not never.exists()


@pytest.mark.parametrize("old", ["file", "kms"])
def test_rewrap_to_a_key_of_kms_that_is_disabled(
    local_kms: RunningAws, image: Image, key: Key, tmp_path: Path, command: Command, old: str
) -> None:
    encrypted = f"oci:{tmp_path}/out"
    own: tuple[object, ...] = ("--wrap-with", f"awskms:///{ALIAS}")
    if old == "file":
        own = ("--keypath", key.path)
    command(
        "encrypt", image.reference, encrypted, *own, *(("--keyid", KID) if old == "file" else ())
    )
    before = files(tmp_path / "out")
    to = ("--to-wrap-with", f"awskms:///{local_kms.disabled}")
    outcome = command("rewrap", encrypted, *own, *to, ok=False)
    assert outcome.code == 4
    assert "the key is disabled" in outcome.err
    assert files(tmp_path / "out") == before


# HSMs.


@pytest.fixture(params=["secret", "key"])
def use_of(request: pytest.FixtureRequest) -> Callable[..., tuple[str, ...]]:
    """Options that use an object of a token: as a secret that is fetched, as a key that stays."""
    if request.param == "secret":
        return lambda hsm, **query: fetched(hsm.uri(KEK, **query))
    return lambda hsm, **query: external(hsm.uri(MASTER, **query))


def test_hsm_with_wrong_pin(
    hsm: SoftHsm,
    use_of: Callable[..., tuple[str, ...]],
    refused: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", WRONG_PIN)
    assert "this one is not tried again" in refused(4, "refused the PIN", *use_of(hsm)).err
    monkeypatch.delenv("COCO_KP_PKCS11_PIN")
    refused(4, "wants a PIN", *use_of(hsm))


def test_hsm_with_locked_pin(
    hsm: SoftHsm,
    use_of: Callable[..., tuple[str, ...]],
    refused: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SoftHSM never locks a PIN."""

    def locked(*_: object, **__: object) -> None:
        raise pkcs11.exceptions.PinLocked

    monkeypatch.setattr(pkcs11.Token, "open", locked)
    monkeypatch.setattr(pkcs11_token, "_session", locked)
    assert "security officer" in refused(4, "is locked", *use_of(hsm)).err


def test_hsm_without_the_token_or_object_or_module(
    hsm: SoftHsm, refused: Callable[..., Outcome]
) -> None:
    other = hsm.uri(KEK).replace(TOKEN, "elsewhere", 1)
    refused(4, "there is no token for 'pkcs11:token=elsewhere;object=kek'", *fetched(other))
    refused(4, "there is no token for", *external(other))
    refused(4, "there is no object 'pkcs11:", *fetched(hsm.uri("absent")))
    refused(4, "there is no object 'pkcs11:", *external(hsm.uri("absent")))
    absent = hsm.uri(KEK, **{"module-path": "/absent.so"})
    refused(4, "there is no PKCS #11 module '/absent.so'", *fetched(absent))


def test_hsm_object_that_does_not_serve(hsm: SoftHsm, refused: Callable[..., Outcome]) -> None:
    refused(4, "does not hand out 'pkcs11:", *fetched(hsm.uri(MASTER)))
    refused(4, "not an AES-256 key", *external(hsm.uri(KEK)), secrets=(hsm.kek,))
    refused(4, "key, not a secret key", *external(hsm.uri(RSA)))
    short = bytes(range(31))
    hsm.add_secret("short", short)
    says = "expected a 32-byte key in 'pkcs11:token=coco-kp;object=short', found 31 bytes"
    refused(4, says, *fetched(hsm.uri("short")), secrets=(short,))
    hsm.add_secret(KEK, os.urandom(32))
    refused(4, "2 objects match", *fetched(hsm.uri(KEK)), secrets=(hsm.kek,))


# Vault.


def deny(vault: SimulatedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.tokens["hvs.ci"] = Token("ci")
    vault.denied = {"secret/data/app", "transit/keys/kek", "transit/encrypt/kek"}
    monkeypatch.setenv("VAULT_TOKEN", "hvs.ci")


def expire(vault: SimulatedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.tokens[EXPIRED] = Token("ci", 1.0)
    monkeypatch.setenv("VAULT_TOKEN", EXPIRED)


def take_token(_: SimulatedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_TOKEN")


def seal(vault: SimulatedVault, _: pytest.MonkeyPatch) -> None:
    vault.sealed = True


def throttle(vault: SimulatedVault, _: pytest.MonkeyPatch) -> None:
    for path in ("GET secret/data/app", "GET transit/keys/kek"):
        vault.faults[path] = lambda _: errors(429, "request path: rate limit quota exceeded")


def unmount(vault: SimulatedVault, _: pytest.MonkeyPatch) -> None:
    vault.mounts = {}


def forget(vault: SimulatedVault, _: pytest.MonkeyPatch) -> None:
    vault.secrets.clear()
    vault.transit.keys.clear()


@pytest.mark.parametrize(
    ("trouble", "code", "says"),
    [
        (seal, 6, "Vault is sealed"),
        (take_token, 4, "there is no token for Vault"),
        (expire, 6, "the token has expired"),
        (deny, 6, "permission denied"),
        (throttle, 6, "too many requests"),
        (unmount, 4, "is mounted at"),
        (forget, 4, "there is no "),
    ],
)
@pytest.mark.parametrize("options", [fetched("vault:///secret/app"), external("hashivault://kek")])
def test_vault_that_refuses(
    open_vault: SimulatedVault,
    refused: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[SimulatedVault, pytest.MonkeyPatch], None],
    code: int,
    says: str,
    options: tuple[str, ...],
) -> None:
    kek = os.urandom(32)
    open_vault.secrets["secret/app"] = [{"data": list(kek)}]
    trouble(open_vault, monkeypatch)
    assert "\nhint: " in refused(code, says, *options, secrets=(kek,)).err


def test_text_in_vault_that_is_a_key_in_base64(
    open_vault: SimulatedVault, refused: Callable[..., Outcome]
) -> None:
    kek = os.urandom(32)
    open_vault.secrets["secret/app"] = [{"data": b64encode(kek).decode()}]
    options = fetched("vault:///secret/app")
    assert "encoding=base64" in refused(4, "found 44 bytes", *options, secrets=(kek,)).err


# All.


@pytest.mark.parametrize(("trouble", "code"), [(seal, 6), (take_token, 4), (deny, 6), (unmount, 6)])
def test_new_key_file_does_not_stay_where_a_store_refuses_the_key(
    open_vault: SimulatedVault,
    refused: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    image: Image,
    tmp_path: Path,
    command: Command,
    trouble: Callable[[SimulatedVault, pytest.MonkeyPatch], None],
    code: int,
) -> None:
    """It would be in the way of the same command, once the trouble is over."""
    new = tmp_path / "out" / "new"
    options = ("--keyid", KID, "--generate-key", new, "--kek-into", "vault:///secret/app")
    mounts = open_vault.mounts
    with monkeypatch.context() as passing:
        trouble(open_vault, passing)
        outcome = refused(code, "Vault", *options)
    assert f"the new key file '{new}' was removed again" in outcome.err
    open_vault.sealed, open_vault.mounts = False, mounts
    command("encrypt", image.reference, f"oci:{tmp_path}/e", *options)
    assert bytes(open_vault.secrets["secret/app"][0]["data"]) == new.read_bytes()


def test_new_key_is_not_kept_where_another_recipients_cannot_be_had(
    open_vault: SimulatedVault, refused: Callable[..., Outcome], tmp_path: Path
) -> None:
    open_vault.transit.keys.clear()
    new, place = tmp_path / "out" / "new", "vault:///secret/new"
    own = ("--keyid", KID, "--generate-key", new, "--kek-into", place)
    second = ("--recipient", f"keyid={EXTERNAL},wrap-with=hashivault://kek")
    refused(4, "there is no transit key 'kek'", *own, *second)
    assert not open_vault.secrets


@pytest.mark.usefixtures("open_vault", "moto", "hsm")
@pytest.mark.parametrize(
    ("options", "package", "extra"),
    [
        (fetched("vault:///secret/app"), "hvac", "vault"),
        (external("hashivault://kek"), "hvac", "vault"),
        (fetched("aws-sm:///app"), "boto3", "aws"),
        (external("awskms:///alias/a"), "boto3", "aws"),
        (("--wrap-with", "awskms:///alias/a"), "boto3", "aws"),
        (fetched("pkcs11:object=kek"), "pkcs11", "pkcs11"),
        (external("pkcs11:object=kek"), "pkcs11", "pkcs11"),
        (("--kek-into", "vault:///secret/app", "--keyid", KID), "hvac", "vault"),
    ],
)
def test_extra_that_is_not_installed(
    refused: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    package: str,
    extra: str,
) -> None:
    for store in ("vault", "vault_session", "aws", "aws_service", "pkcs11", "pkcs11_token"):
        monkeypatch.delitem(sys.modules, f"coco_kp.keys.stores.{store}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    says = (
        f"needs the Python package {package}\nhint: install it with: pip install 'coco-kp[{extra}]'"
    )
    refused(3, says, *options)


@pytest.mark.usefixtures("open_vault", "hsm")
@pytest.mark.parametrize(
    ("code", "says", "options"),
    [
        (
            2,
            "--kek-from and --wrap-with exclude each other",
            (*fetched("file:k"), "--wrap-with", "hashivault://kek"),
        ),
        (2, "--kek-from needs --keyid URI", ("--kek-from", "vault:///secret/app")),
        (3, "no guest asks 'hashivault://kek' for a key", ("--wrap-with", "hashivault://kek")),
        (
            3,
            "no guest can open what 'hashivault://kek' wraps",
            ("--wrap-with", "hashivault://kek", "--keyid", KID),
        ),
        (3, "wraps with A256GCM only", (*external("hashivault://kek"), "--algorithm", "A256CTR")),
        (3, "does not wrap by itself", external("vault:///secret/app")),
        (3, "cannot be fetched from 'awskms:///alias/a'", fetched("awskms:///alias/a")),
        (
            3,
            "has a query: the wrapped key goes there",
            ("--wrap-with", "hashivault://kek", "--keyid", f"{EXTERNAL}?ct=AAAA"),
        ),
    ],
)
def test_key_reference_that_does_not_go_with_the_rest(
    refused: Callable[..., Outcome], code: int, says: str, options: tuple[str, ...]
) -> None:
    refused(code, says, *options)
