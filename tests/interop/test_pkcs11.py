"""Keys in an HSM, against SoftHSM; what it cannot do, against a token that is made up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pkcs11
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import TokenFlag, exceptions

from coco_kp.deadline import within
from coco_kp.errors import CocoKpError, InputError, KekError, RefusedError, UnreachableError
from coco_kp.keys.reference import Pkcs11Reference, parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.stores import pkcs11 as store_module
from coco_kp.keys.stores import pkcs11_token as token_module
from coco_kp.keys.stores.interface import CiphertextError, GcmKey, Store
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from tests.peers.softhsm import KEK, MASTER, PIN, RSA, TOKEN, SoftHsm
from tests.support.abandoned import await_abandoned
from tests.support.patience import PATIENCE
from tests.support.traces import traces

pytestmark = pytest.mark.peer

SECRET = bytes(range(32, 64))
CONTEXT = {"coco-kp": "prod"}

FETCH = """
import sys
from coco_kp.keys.reference import parse_kek_reference
from coco_kp.keys.stores.opening import open_store
sys.stdout.buffer.write(open_store(parse_kek_reference(sys.argv[1])).fetch())
"""
FETCH_AND_FORK = """
import os, sys
from coco_kp.errors import KekError
from coco_kp.keys.reference import parse_kek_reference
from coco_kp.keys.stores.opening import open_store
store = open_store(parse_kek_reference(sys.argv[1]))
store.fetch()
child = os.fork()
if not child:
    try:
        store.fetch()
    except KekError as error:
        print(error.message, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def store(uri: str) -> Store:
    return open_store(parse_kek_reference(uri))


def key(uri: str) -> GcmKey:
    opened = open_wrapping_key(parse_wrapping_reference(uri))
    assert isinstance(opened, GcmKey)
    return opened


def add_secret(hsm: SoftHsm, label: str, value: bytes, **attributes: object) -> None:
    """Make a secret key object, whether or not there is one of the label."""
    template = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
        pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
        pkcs11.Attribute.LABEL: label,
        pkcs11.Attribute.VALUE: value,
        pkcs11.Attribute.TOKEN: True,
        pkcs11.Attribute.PRIVATE: True,
        pkcs11.Attribute.SENSITIVE: False,
        pkcs11.Attribute.EXTRACTABLE: True,
        **{pkcs11.Attribute[name]: value for name, value in attributes.items()},
    }
    token = pkcs11.lib(str(hsm.module)).get_token(token_label=TOKEN)
    with token.open(rw=True, user_pin=PIN) as session:
        session.create_object(template)


def refusal(call: Callable[[], object]) -> CocoKpError:
    with pytest.raises(CocoKpError) as error:
        call()
    assert error.value.hint
    assert PIN not in str(error.value)
    return error.value


def test_pkcs11_store_fetches_the_secret(hsm: SoftHsm) -> None:
    assert store(hsm.uri(KEK)).fetch() == hsm.kek
    assert store(hsm.uri(KEK)).check().startswith("a key, ")


def test_pkcs11_store_keeps_a_key_for_other_processes(hsm: SoftHsm) -> None:
    uri = hsm.uri("default/key/kept")
    store(uri).keep(SECRET)
    assert store(uri).fetch() == SECRET
    fetched = subprocess.run([sys.executable, "-c", FETCH, uri], stdout=subprocess.PIPE, check=True)
    assert fetched.stdout == SECRET


def test_pkcs11_store_never_keeps_a_second_key_of_a_label(hsm: SoftHsm) -> None:
    uri = hsm.uri("default/key/once")
    store(uri).keep(SECRET)
    with pytest.raises(RefusedError, match="there is an object 'pkcs11:token=coco-kp;object="):
        store(uri).keep(bytes(32))
    assert store(uri).fetch() == SECRET


@pytest.mark.parametrize("look_before_it", [0, 1], ids=["our write", "our second look"])
def test_pkcs11_store_keeps_at_most_one_key_when_two_come_at_once(
    look_before_it: int, hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes its object between our look and our write, or between two looks."""
    uri = hsm.uri(f"default/key/raced{look_before_it}")
    matching, looks = store_module._matching, list[int]()

    def look(session: pkcs11.Session, reference: Pkcs11Reference) -> list[pkcs11.Object]:
        found = matching(session, reference)
        if len(looks) == look_before_it:
            add = {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
                pkcs11.Attribute.LABEL: f"default/key/raced{look_before_it}",
                pkcs11.Attribute.VALUE: SECRET,
                pkcs11.Attribute.TOKEN: True,
                pkcs11.Attribute.SENSITIVE: False,
                pkcs11.Attribute.EXTRACTABLE: True,
            }
            session.create_object(add)
        looks.append(len(found))
        return found

    monkeypatch.setattr(store_module, "_matching", look)
    with pytest.raises((RefusedError, KekError)):
        store(uri).keep(bytes(32))
    assert looks == [[0, 2], [0, 1, 2]][look_before_it]
    monkeypatch.undo()
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", PIN)
    assert store(uri).fetch() == SECRET


@pytest.mark.parametrize(
    ("last_look", "others", "says"),
    [(3, 0, "SessionHandleInvalid"), (2, 1, "there is an object 'pkcs11:")],
    ids=["before it is read", "when another's is found"],
)
def test_pkcs11_store_whose_session_ends_says_that_its_object_may_stay(
    last_look: int, others: int, says: str, hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it could not be taken back was told in place of why it was to be."""
    uri = hsm.uri("default/key/left")
    matching, looks = store_module._matching, list[int]()

    def look(session: pkcs11.Session, reference: Pkcs11Reference) -> list[pkcs11.Object]:
        found = matching(session, reference)
        looks.append(len(found))
        if len(looks) == last_look:
            session.close()
        return found * (1 + others)

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "_matching", look)
        error = refusal(lambda: store(uri).keep(SECRET))
    assert says in error.message
    assert re.search(r"; the new object 'pkcs11:\S+left' may still be there$", error.message)
    assert store(uri).fetch() == SECRET


def test_pkcs11_key_wraps_under_a_context(hsm: SoftHsm) -> None:
    wrapping = key(hsm.uri(MASTER))
    ciphertext = wrapping.encrypt(SECRET, CONTEXT)
    assert len(ciphertext) == 12 + 32 + 16
    assert ciphertext != wrapping.encrypt(SECRET, CONTEXT)
    assert wrapping.decrypt(ciphertext, CONTEXT) == SECRET
    assert wrapping.check() == "an AES-256 key that the HSM never hands out"


def test_pkcs11_key_takes_context_as_canonical_json(hsm: SoftHsm) -> None:
    add_secret(hsm, "known", SECRET, KEY_TYPE=pkcs11.KeyType.AES, ENCRYPT=True, DECRYPT=True)
    ciphertext = key(hsm.uri("known")).encrypt(b"kek", {"b": "é", "a": "1"})
    aad = '{"a":"1","b":"é"}'.encode()
    assert AESGCM(SECRET).decrypt(ciphertext[:12], ciphertext[12:], aad) == b"kek"
    assert key(hsm.uri("known")).check() == "an AES-256 key that the HSM hands out"


def test_pkcs11_key_with_given_iv_makes_what_every_guest_opens(hsm: SoftHsm) -> None:
    add_secret(hsm, "same", SECRET, KEY_TYPE=pkcs11.KeyType.AES, ENCRYPT=True, DECRYPT=True)
    iv, options = os.urandom(12), os.urandom(193)
    ciphertext = key(hsm.uri("same")).encrypt_gcm(iv, options)
    assert AESGCM(SECRET).decrypt(iv, ciphertext, None) == options
    assert key(hsm.uri("same")).decrypt_gcm(iv, ciphertext) == options
    with pytest.raises(CiphertextError):
        key(hsm.uri("same")).decrypt_gcm(bytes(12), ciphertext)


@pytest.mark.parametrize(
    "change",
    [
        lambda ciphertext: ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]),
        lambda ciphertext: bytes([ciphertext[0] ^ 1]) + ciphertext[1:],
        lambda ciphertext: ciphertext[:-1],
        lambda ciphertext: ciphertext + b"x",
        lambda ciphertext: ciphertext[:27],
        lambda _: b"",
    ],
)
def test_pkcs11_key_refuses_altered_ciphertext(
    hsm: SoftHsm, change: Callable[[bytes], bytes]
) -> None:
    wrapping = key(hsm.uri(MASTER))
    altered = change(wrapping.encrypt(SECRET, CONTEXT))
    with pytest.raises(CiphertextError, match="does not decrypt this"):
        wrapping.decrypt(altered, CONTEXT)


@pytest.mark.parametrize("context", [{}, {"coco-kp": "prod2"}, CONTEXT | {"more": ""}])
def test_pkcs11_key_refuses_another_context(hsm: SoftHsm, context: dict[str, str]) -> None:
    wrapping = key(hsm.uri(MASTER))
    with pytest.raises(CiphertextError):
        wrapping.decrypt(wrapping.encrypt(SECRET, CONTEXT), context)


def test_pkcs11_key_refuses_what_another_key_encrypted(hsm: SoftHsm) -> None:
    hsm.add_master("second")
    ciphertext = key(hsm.uri("second")).encrypt(SECRET, CONTEXT)
    with pytest.raises(CiphertextError):
        key(hsm.uri(MASTER)).decrypt(ciphertext, CONTEXT)


def test_pkcs11_reference_finds_object_by_id_and_token_by_each_attribute(hsm: SoftHsm) -> None:
    add_secret(hsm, "by id", SECRET, ID=b"\x01\x02")
    (token,) = pkcs11.lib(str(hsm.module)).get_tokens(token_label=TOKEN)
    serial = token.serial.decode()
    where = f"serial={serial};manufacturer=SoftHSM%20project;model=SoftHSM%20v2"
    uri = f"pkcs11:{where};id=%01%02;type=secret-key?module-path={hsm.module}"
    assert store(uri).fetch() == SECRET
    for wrong in (uri.replace(serial, "0" * 16), uri.replace("project", "x"), uri + "2"):
        with pytest.raises(KekError):
            store(wrong).fetch()


def test_pkcs11_module_and_pin_come_from_environment_or_uri(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = f"pkcs11:token={TOKEN};object={KEK}"
    monkeypatch.setenv("COCO_KP_PKCS11_MODULE", str(hsm.module))
    assert store(bare).fetch() == hsm.kek
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", "wrong")
    (tmp_path / "pin").write_text(f"{PIN}\n")
    assert store(f"{bare}?pin-source=file:{tmp_path}/pin").fetch() == hsm.kek
    monkeypatch.setenv("COCO_KP_PKCS11_MODULE", "/absent.so")
    assert store(hsm.uri(KEK, **{"pin-source": f"{tmp_path}/pin"})).fetch() == hsm.kek


def test_pkcs11_refuses_two_objects_of_one_label(hsm: SoftHsm) -> None:
    add_secret(hsm, "twice", SECRET, ID=b"1")
    add_secret(hsm, "twice", bytes(32), ID=b"2")
    hsm.add_master("two masters")
    hsm.add_master("two masters")
    error = refusal(store(hsm.uri("twice")).fetch)
    assert "2 objects match 'pkcs11:token=coco-kp;object=twice'" in error.message
    error = refusal(lambda: key(hsm.uri("two masters")).encrypt(SECRET, CONTEXT))
    assert "2 objects match" in error.message
    by_id = hsm.uri("twice").replace("?", ";id=2?")
    assert store(by_id).fetch() == bytes(32)


def test_pkcs11_refuses_two_tokens_of_one_label(hsm: SoftHsm) -> None:
    hsm.initialize()
    error = refusal(store(hsm.uri(KEK)).fetch)
    assert "2 tokens match" in error.message
    assert "serial=" in error.hint


@pytest.mark.parametrize(
    ("label", "fetching", "wrapping"),
    [
        ("absent", "there is no object 'pkcs11:", "there is no object"),
        (RSA, "key, not a secret key", "key, not a secret key"),
        (MASTER, "does not hand out 'pkcs11:", None),
        (KEK, None, "is generic secret secret key of 32 bytes, not an AES-256 key"),
        ("aes128", None, "is aes secret key of 16 bytes, not an AES-256 key"),
        ("idle", None, "may not encrypt"),
    ],
)
def test_pkcs11_says_what_is_wrong_with_the_object(
    hsm: SoftHsm, label: str, fetching: str | None, wrapping: str | None
) -> None:
    aes = {"KEY_TYPE": pkcs11.KeyType.AES}
    if label == "aes128":
        add_secret(hsm, label, bytes(16), ENCRYPT=True, DECRYPT=True, **aes)
    if label == "idle":
        add_secret(hsm, label, SECRET, ENCRYPT=False, DECRYPT=False, **aes)
    if fetching:
        assert fetching in refusal(store(hsm.uri(label)).fetch).message
    if wrapping:
        call = key(hsm.uri(label)).encrypt
        assert wrapping in refusal(lambda: call(SECRET, CONTEXT)).message


def test_pkcs11_decrypt_needs_the_permission(hsm: SoftHsm) -> None:
    add_secret(hsm, "one way", SECRET, KEY_TYPE=pkcs11.KeyType.AES, ENCRYPT=True, DECRYPT=False)
    ciphertext = key(hsm.uri("one way")).encrypt(SECRET, CONTEXT)
    error = refusal(lambda: key(hsm.uri("one way")).decrypt(ciphertext, CONTEXT))
    assert "may not decrypt" in error.message
    assert not isinstance(error, CiphertextError)


def test_pkcs11_check_says_that_a_secret_is_no_kek(hsm: SoftHsm) -> None:
    add_secret(hsm, "short", bytes(31))
    with pytest.raises(KekError, match="expected a 32-byte key in 'pkcs11:.* found 31 bytes"):
        store(hsm.uri("short")).check()


@pytest.mark.parametrize("kind", ["private", "public", "cert", "data"])
def test_pkcs11_refuses_reference_to_what_is_no_secret_key(kind: str) -> None:
    with pytest.raises(InputError, match=f"type is '{kind}'"):
        store(f"pkcs11:object=x;type={kind}")
    with pytest.raises(InputError, match="type is"):
        key(f"pkcs11:object=x;type={kind}")


def test_pkcs11_says_that_module_or_token_or_pin_is_missing(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = f"pkcs11:token={TOKEN};object={KEK}"
    assert "no PKCS #11 module is named" in refusal(store(bare).fetch).message
    absent = f"{bare}?module-path=/absent.so"
    assert refusal(store(absent).fetch).message == "there is no PKCS #11 module '/absent.so'"
    for wrong in (Path(sys.executable), Path(__file__)):
        error = refusal(store(f"{bare}?module-path={quote(str(wrong))}").fetch)
        assert "cannot be loaded: " in error.message
    error = refusal(store(f"{bare}?module-path=nothing-of-the-name.so").fetch)
    assert "cannot be loaded: nothing-of-the-name.so" in error.message
    error = refusal(store(hsm.uri(KEK).replace(TOKEN, "other", 1)).fetch)
    assert error.message == "there is no token for 'pkcs11:token=other;object=kek'"
    monkeypatch.delenv("COCO_KP_PKCS11_PIN")
    assert "wants a PIN" in refusal(store(hsm.uri(KEK)).fetch).message
    files = {"empty": b"\n", "binary": b"\xff", "long": b"1" * 256}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "absent"):
        uri = hsm.uri(KEK, **{"pin-source": str(tmp_path / name)})
        with pytest.raises(KekError, match=rf"/{name}'"):
            store(uri).fetch()


def test_pkcs11_says_that_module_finds_no_configuration(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.so"
    copy.write_bytes(Path(hsm.module).read_bytes())
    monkeypatch.setenv("SOFTHSM2_CONF", "/absent")
    error = refusal(store(f"pkcs11:token={TOKEN};object={KEK}?module-path={copy}").fetch)
    assert "cannot be loaded: GeneralError" in error.message
    assert "SOFTHSM2_CONF" in error.hint


def test_pkcs11_tries_a_wrong_pin_once_only(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats it for each request would lock the token."""
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", "654321")
    logins = []
    session = token_module._session

    def counted(token: pkcs11.Token, pin: str, name: str, *, write: bool) -> pkcs11.Session:
        before = len(token_module._rejected)
        try:
            return session(token, pin, name, write=write)
        finally:
            logins.append(len(token_module._rejected) - before)

    monkeypatch.setattr(token_module, "_session", counted)
    for _ in range(3):
        error = refusal(store(hsm.uri(KEK)).fetch)
        assert error.message.endswith("refused the PIN")
        assert "654321" not in str(error)
    assert logins == [1, 0, 0]
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", PIN)
    assert store(hsm.uri(KEK)).fetch() == hsm.kek


class MadeUpToken:
    """A token with states that SoftHSM does not have."""

    serial = b"1"

    def __init__(self, flags: TokenFlag, error: exceptions.PKCS11Error | None = None) -> None:
        self.flags = flags
        self._error = error
        self.logins = 0

    def open(self, **_: object) -> object:
        self.logins += 1
        if self._error:
            raise self._error
        return self


@pytest.mark.parametrize(
    ("flags", "error", "text", "logins"),
    [
        (TokenFlag.USER_PIN_LOCKED, None, "the PIN of the token of KEY is locked", 0),
        (TokenFlag.USER_PIN_FINAL_TRY, None, "the next wrong PIN locks the token of KEY", 0),
    ],
)
def test_pkcs11_does_not_try_a_pin_where_that_may_lock_the_token(
    flags: TokenFlag, error: exceptions.PKCS11Error | None, text: str, logins: int
) -> None:
    token = MadeUpToken(TokenFlag.LOGIN_REQUIRED | flags, error)
    with pytest.raises(KekError, match=text):
        token_module._session(token, "1234", "KEY", write=False)  # type: ignore[arg-type]
    assert token.logins == logins


def test_pkcs11_token_without_login_needs_no_pin() -> None:
    token = MadeUpToken(TokenFlag.TOKEN_INITIALIZED)
    assert token_module._session(token, "", "KEY", write=False) is token  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (exceptions.PinLocked(), "the PIN of the token of KEY is locked"),
        (exceptions.PinIncorrect(), "the token of KEY refused the PIN"),
        (exceptions.PinLenRange(), "the token of KEY refused the PIN"),
        (exceptions.PinExpired(), "wants a new PIN before it is used"),
        (exceptions.UserPinNotInitialized(), "wants a new PIN before it is used"),
        (exceptions.MechanismInvalid(), "does not do AES-GCM"),
        (exceptions.MechanismParamInvalid(), "initialisation vector that it did not draw itself"),
        (exceptions.TokenWriteProtected(), "cannot be written"),
        (exceptions.DeviceRemoved(), "was removed"),
        (exceptions.DeviceError(), "the HSM's module failed over KEY: DeviceError"),
        (exceptions.PKCS11Error("Unmapped error code 0x68"), "failed over KEY: Unmapped error"),
    ],
)
def test_pkcs11_return_codes_have_words_of_their_own(
    error: exceptions.PKCS11Error, text: str
) -> None:
    said = token_module.failure(error, "KEY")
    assert text in said.message
    assert said.hint


def test_pkcs11_calls_take_turns_in_many_threads(hsm: SoftHsm) -> None:
    wrapping = key(hsm.uri(MASTER))

    def round_trip(number: int) -> bool:
        plaintext = bytes([number]) * 32
        return wrapping.decrypt(wrapping.encrypt(plaintext, CONTEXT), CONTEXT) == plaintext

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(round_trip, range(64)))


def test_pkcs11_call_that_hangs_is_left_behind(hsm: SoftHsm) -> None:
    turn, returned = threading.Lock(), threading.Event()
    used: list[str] = []
    reference = parse_wrapping_reference(hsm.uri(MASTER))
    assert isinstance(reference, Pkcs11Reference)
    try:
        no_answer = pytest.raises(UnreachableError, match="the HSM of .*: no answer in time")
        with no_answer, within(0.3):
            token_module.in_session(reference, lambda _: returned.wait(60), turn=turn)
        with pytest.raises(UnreachableError), within(0.3):  # its turn never comes, nor later
            token_module.in_session(reference, lambda _: used.append("late"), turn=turn)
    finally:
        returned.set()
    token_module.in_session(reference, lambda _: used.append("in time"), turn=turn)
    await_abandoned()
    assert used == ["in time"]


class LateTurn:
    """A turn that comes when nobody waits for the answer any more."""

    def __init__(self) -> None:
        self.comes, self.ended = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self.comes.wait(PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.ended.set()


def test_pkcs11_call_whose_turn_comes_too_late_does_nothing(hsm: SoftHsm) -> None:
    """A key would be kept after its user was told that it is not."""
    turn, used = LateTurn(), list[str]()
    reference = parse_wrapping_reference(hsm.uri(MASTER))
    assert isinstance(reference, Pkcs11Reference)
    with pytest.raises(UnreachableError), within(0.1):
        token_module.in_session(reference, lambda _: used.append("late"), turn=turn)
    turn.comes.set()
    assert turn.ended.wait(PATIENCE)
    assert used == []


def test_pkcs11_is_refused_in_a_forked_process(hsm: SoftHsm) -> None:
    command = [sys.executable, "-c", FETCH_AND_FORK, hsm.uri(KEK)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "this process was forked from one that uses an HSM" in done.stdout


def test_pkcs11_objects_show_no_secret(hsm: SoftHsm) -> None:
    shown = "\n".join(map(repr, (store(hsm.uri(KEK)), key(hsm.uri(MASTER)))))
    shown += store(hsm.uri(KEK)).check() + key(hsm.uri(MASTER)).check()
    assert PIN not in shown
    assert not [trace for trace in traces(hsm.kek) if trace in shown.encode()]
