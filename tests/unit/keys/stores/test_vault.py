from __future__ import annotations

import json
from base64 import b64encode

import pytest

from coco_kp.errors import CocoKpError, KekError, RefusedError, RemoteError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.stores.interface import Store, WrappingKey
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from tests.sim.http_server import Reply
from tests.support.traces import traces
from tests.unit.keys.stores.scripted_vault import ScriptedVault, errors, ok, reply

KEK = bytes(range(100, 132))
ONE, TWO = "/v1/kv/default/key/1", "/v1/kv/data/default/key/1"
MOUNTS = "GET /v1/sys/internal/ui/mounts/kv/default/key/1"
ENGINE_ONE = ok({"type": "kv", "options": {"version": "1"}, "path": "kv/"})
ENGINE_TWO = ok({"type": "kv", "options": {"version": "2"}, "path": "kv/"})
CAS = errors(400, "check-and-set parameter did not match the current version")
NO_ROUTE = errors(404, 'no handler for route "kv/default/key/1". route entry not found.')
VERSIONED_WORDS = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API "
    "endpoints to use. If using the Vault CLI, use 'vault kv get' for this operation."
)
VERSIONED = reply(404, {"data": None, "warnings": [VERSIONED_WORDS]})
DELETED = reply(
    404,
    {
        "data": {
            "data": None,
            "metadata": {"deletion_time": "2026-11-26T04:18:00Z", "destroyed": False, "version": 3},
        }
    },
)


def store(query: str = "") -> Store:
    return open_store(parse_kek_reference(f"vault:///kv/default/key/1{query}"))


def two(value: object, name: str = "data") -> Reply:
    return ok({"data": {name: value}, "metadata": {"version": 1}})


@pytest.mark.parametrize(
    ("query", "value", "found"),
    [
        ("", list(KEK), KEK),
        ("?encoding=base64", list(KEK), KEK),
        ("?encoding=base64", b64encode(KEK).decode(), KEK),
        ("?encoding=base64", b64encode(KEK).decode() + "\n", KEK),
        ("", b64encode(KEK).decode(), b64encode(KEK)),
        ("", "é", "é".encode()),
    ],
)
def test_fetch_reads_array_of_numbers_and_text_in_its_encoding(
    vault: ScriptedVault, query: str, value: object, found: bytes
) -> None:
    vault.on(f"GET {TWO}", two(value))
    assert store(query).fetch() == found


def test_fetch_reads_version_1_and_named_field(vault: ScriptedVault) -> None:
    vault.on(f"GET {ONE}", ok({"data": "other", "kek": list(KEK)}))
    assert store("?kv=1&field=kek").fetch() == KEK


def test_base64_that_was_not_named_is_an_error_that_names_it(vault: ScriptedVault) -> None:
    vault.on(f"GET {TWO}", two(b64encode(KEK).decode()))
    with pytest.raises(KekError) as error:
        store().check()
    assert error.value.message == (
        "expected a 32-byte key in 'kv/default/key/1' of Vault, found 44 bytes"
    )
    assert error.value.hint == "add encoding=base64 to the key reference"


def test_check_shows_fingerprint(vault: ScriptedVault) -> None:
    vault.on(f"GET {TWO}", two(list(KEK)))
    assert store().check() == f"a key, {kek_of(KEK, 'it').fingerprint}"


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (errors(404), "there is no secret 'kv/default/key/1' in Vault", "of version 2"),
        (NO_ROUTE, "no secrets engine is mounted at 'kv' in Vault", "VAULT_NAMESPACE"),
        (DELETED, "the newest version of 'kv/default/key/1' of Vault was deleted", "undelete"),
        (two(1), "the field 'data' of 'kv/default/key/1' of Vault is neither", ""),
        (two([256]), "is neither a text nor an array of byte numbers", ""),
        (two([True]), "is neither a text nor an array of byte numbers", ""),
        (two("x", "other"), "'kv/default/key/1' of Vault has no field 'data'", "field="),
        (ok(None), "'kv/default/key/1' of Vault has no field 'data'", "field="),
    ],
)
def test_fetch_says_what_is_missing(
    vault: ScriptedVault, answer: Reply, message: str, hint: str
) -> None:
    vault.on(f"GET {TWO}", answer)
    with pytest.raises(KekError) as error:
        store().fetch()
    assert message in error.value.message
    assert hint in error.value.hint


def test_fetch_of_bad_base64_names_field_and_shows_nothing(vault: ScriptedVault) -> None:
    vault.on(f"GET {TWO}", two(b64encode(KEK).decode()[:-2]))
    with pytest.raises(KekError) as error:
        store("?encoding=base64").fetch()
    assert error.value.message == ("the field 'data' of 'kv/default/key/1' of Vault is not base64")


def test_fetch_from_engine_of_version_2_as_version_1_names_other_version(
    vault: ScriptedVault,
) -> None:
    vault.on(f"GET {ONE}", VERSIONED)
    with pytest.raises(KekError) as error:
        store("?kv=1").fetch()
    assert error.value.message == "the key-value engine at 'kv' of Vault is of version 2, not 1"
    assert error.value.hint == "write kv=2 in the key reference"


def test_keep_writes_array_of_numbers_that_replaces_nothing(vault: ScriptedVault) -> None:
    vault.on(MOUNTS, ENGINE_TWO)
    vault.on(f"POST {TWO}", ok({"version": 1}))
    vault.on(f"GET {TWO}", two(list(KEK)))
    store().keep(KEK)
    assert vault.sent(f"POST {TWO}") == {"data": {"data": list(KEK)}, "options": {"cas": 0}}
    assert vault.asked() == [MOUNTS, f"POST {TWO}", f"GET {TWO}"]  # read back


def test_keep_in_version_1_writes_where_a_kbs_reads(vault: ScriptedVault) -> None:
    vault.on(MOUNTS, ENGINE_ONE)
    vault.on(f"POST {ONE}", Reply(204))
    vault.on(f"GET {ONE}", errors(404), ok({"data": list(KEK)}))
    store("?kv=1").keep(KEK)
    assert vault.sent(f"POST {ONE}") == {"data": list(KEK)}
    assert vault.asked() == [MOUNTS, f"GET {ONE}", f"POST {ONE}", f"GET {ONE}"]


def test_keep_in_version_2_refuses_what_exists(vault: ScriptedVault) -> None:
    vault.on(MOUNTS, ENGINE_TWO)
    vault.on(f"POST {TWO}", CAS)
    with pytest.raises(RefusedError) as error:
        store().keep(KEK)
    assert error.value.message == (
        "'kv/default/key/1' of Vault exists, or existed: a key is never replaced"
    )
    assert error.value.hint == "choose another path, or fetch the key that is there"
    assert error.value.code == "key-exists"


def test_keep_in_version_1_refuses_what_exists_without_writing(vault: ScriptedVault) -> None:
    vault.on(MOUNTS, ENGINE_ONE)
    vault.on(f"GET {ONE}", ok({"another field": "x"}))
    with pytest.raises(RefusedError, match="exists, or existed: a key is never replaced"):
        store("?kv=1").keep(KEK)
    assert vault.asked() == [MOUNTS, f"GET {ONE}"]


@pytest.mark.parametrize(
    ("query", "mounted", "message"),
    [
        ("", ENGINE_ONE, "the key-value engine at 'kv' of Vault is of version 1, not 2"),
        ("", ok({"type": "kv", "options": None}), "is of version 1, not 2"),
        ("?kv=1", ENGINE_TWO, "the key-value engine at 'kv' of Vault is of version 2, not 1"),
        ("", ok({"type": "transit"}), "'kv' of Vault is not a key-value engine"),
        ("", NO_ROUTE, "no secrets engine is mounted at 'kv' in Vault"),
    ],
)
def test_keep_writes_nothing_to_engine_of_another_kind(
    vault: ScriptedVault, query: str, mounted: Reply, message: str
) -> None:
    """One of version 1 would take a write for version 2, and replace what is there."""
    vault.on(MOUNTS, mounted)
    with pytest.raises(KekError) as error:
        store(query).keep(KEK)
    assert message in error.value.message
    assert vault.asked() == [MOUNTS]


def test_keep_says_that_somebody_else_wrote_another_key(vault: ScriptedVault) -> None:
    vault.on(MOUNTS, ENGINE_ONE)
    vault.on(f"POST {ONE}", Reply(204))
    vault.on(f"GET {ONE}", errors(404), ok({"data": [0] * 32}))
    with pytest.raises(KekError, match="holds another key than was written"):
        store("?kv=1").keep(KEK)


def test_keep_that_cannot_read_back_says_that_key_was_written(vault: ScriptedVault) -> None:
    vault.on(MOUNTS, ENGINE_TWO)
    vault.on(f"POST {TWO}", ok({"version": 1}))
    vault.on(f"GET {TWO}", errors(403, "permission denied"))
    vault.on("GET /v1/auth/token/lookup-self", ok({"ttl": 100}))
    with pytest.raises(RemoteError) as error:
        store().keep(KEK)
    assert error.value.message.startswith("the key was written, and could not be read back: ")


@pytest.mark.parametrize("status", [400, 403, 404, 412, 500])
def test_refusal_of_written_key_never_repeats_it(vault: ScriptedVault, status: int) -> None:
    vault.on(MOUNTS, ENGINE_TWO)
    vault.on("GET /v1/auth/token/lookup-self", ok({"ttl": 100}))
    for echo in (list(KEK), KEK.hex(), f"{' '.join(map(str, KEK))}"):
        vault.on(f"POST {TWO}", errors(status, json.dumps(echo)))
        with pytest.raises(CocoKpError) as error:
            store().keep(KEK)
        shown_text = f"{error.value!r} {error.value}".encode()
        assert not [trace for trace in traces(KEK) if trace in shown_text]
        assert " ".join(map(str, KEK[:3])).encode() not in shown_text


SHOW, ENCRYPT, DECRYPT = (
    "GET /v1/transit/keys/prod",
    "POST /v1/transit/encrypt/prod",
    "POST /v1/transit/decrypt/prod",
)
AES = ok({"type": "aes256-gcm96", "derived": False})
CONTEXT = {"name": "prod", "a": "é"}
BOUND = b64encode(b'{"a":"\\u00e9","name":"prod"}').decode()


def transit() -> WrappingKey:
    return open_wrapping_key(parse_wrapping_reference("hashivault://prod"))


def test_transit_encrypts_bound_to_context(vault: ScriptedVault) -> None:
    vault.on(SHOW, AES)
    vault.on(ENCRYPT, ok({"ciphertext": "vault:v1:AAAA", "key_version": 1}))
    assert transit().encrypt(KEK, CONTEXT) == b"vault:v1:AAAA"
    assert vault.sent(ENCRYPT) == {
        "plaintext": b64encode(KEK).decode(),
        "associated_data": BOUND,
        "context": BOUND,
    }


def test_transit_decrypts_with_same_context_in_any_order(vault: ScriptedVault) -> None:
    vault.on(DECRYPT, ok({"plaintext": b64encode(KEK).decode()}))
    assert transit().decrypt(b"vault:v1:AAAA", dict(reversed(CONTEXT.items()))) == KEK
    assert vault.sent(DECRYPT) == {
        "ciphertext": "vault:v1:AAAA",
        "associated_data": BOUND,
        "context": BOUND,
    }
    assert vault.asked() == [DECRYPT]  # a policy that allows this alone is enough


def test_transit_engine_may_be_mounted_elsewhere(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSIT_SECRET_ENGINE_PATH", "/team/transit/")
    vault.on("POST /v1/team/transit/decrypt/prod", ok({"plaintext": "YQ=="}))
    assert transit().decrypt(b"vault:v1:AAAA", {}) == b"a"


@pytest.mark.parametrize(("derived", "said"), [(True, ", derived"), (False, "")])
def test_transit_check_shows_type(vault: ScriptedVault, derived: bool, said: str) -> None:
    vault.on(SHOW, ok({"type": "aes256-gcm96", "derived": derived}))
    assert transit().check() == f"a transit key of type aes256-gcm96{said}"


def test_transit_never_makes_a_key_by_encrypting(vault: ScriptedVault) -> None:
    """Vault would, for a token that may create: a typo would become a key that nobody knows."""
    with pytest.raises(KekError) as error:
        transit().encrypt(KEK, {})
    assert error.value.message == "there is no transit key 'prod' in Vault"
    assert error.value.hint == "make it: vault write -f transit/keys/prod type=aes256-gcm96"
    assert vault.asked() == [SHOW]


def test_transit_key_of_another_type_is_not_used(vault: ScriptedVault) -> None:
    vault.on(SHOW, ok({"type": "rsa-4096"}))
    for use in (transit().check, lambda: transit().encrypt(KEK, {})):
        with pytest.raises(KekError) as error:
            use()
        assert error.value.message == (
            "the transit key 'prod' of Vault is of type 'rsa-4096', not aes256-gcm96"
        )
        assert "type=aes256-gcm96" in error.value.hint


def test_transit_of_vault_that_binds_no_context_is_refused(vault: ScriptedVault) -> None:
    vault.on(SHOW, AES)
    warning = "Endpoint ignored these unrecognized parameters: [associated_data]"
    vault.on(ENCRYPT, ok({"ciphertext": "vault:v1:AAAA"}, warnings=[warning]))
    with pytest.raises(KekError) as error:
        transit().encrypt(KEK, CONTEXT)
    assert "too old to bind a context" in error.value.message
    assert "1.13" in error.value.hint


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (errors(400, "cipher: message authentication failed"), "does not open it: it was", ""),
        (errors(400, "invalid ciphertext: could not decode"), "does not open it: it was", ""),
        (
            errors(400, "ciphertext or signature version is disallowed by policy (too old)"),
            "may no longer open it: its version was retired",
            "min_decryption_version",
        ),
        (
            errors(400, "encryption key not found"),
            "there is no transit key 'prod' in Vault",
            "make",
        ),
        (
            errors(404, 'no handler for route "transit/decrypt/prod". route entry not found.'),
            "no transit engine is mounted at 'transit' in Vault",
            "TRANSIT_SECRET_ENGINE_PATH",
        ),
        (errors(400, "other"), "did not decrypt with the transit key 'prod': 'other'", "log"),
    ],
)
def test_transit_decrypt_says_why_not(
    vault: ScriptedVault, answer: Reply, message: str, hint: str
) -> None:
    vault.on(DECRYPT, answer)
    with pytest.raises(KekError) as error:
        transit().decrypt(b"vault:v1:AAAA", {})
    assert message in error.value.message
    assert hint in error.value.hint


@pytest.mark.parametrize("ciphertext", [b"", b"AAAA", b"vault:v1:\xff", bytes(64)])
def test_transit_sends_nothing_that_it_did_not_make(
    vault: ScriptedVault, ciphertext: bytes
) -> None:
    with pytest.raises(KekError, match="was not made by a transit engine of Vault"):
        transit().decrypt(ciphertext, {})
    assert vault.requests == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"plaintext": "???"}, "what Vault decrypted is not base64"),
        ({"plaintext": 1}, "an answer of Vault's lacks the text 'plaintext'"),
        ([], "an answer of Vault's lacks the text 'plaintext'"),
    ],
)
def test_transit_refuses_answer_of_wrong_form(
    vault: ScriptedVault, data: object, message: str
) -> None:
    vault.on(DECRYPT, ok(data))
    with pytest.raises(RemoteError, match=message):
        transit().decrypt(b"vault:v1:AAAA", {})
