from __future__ import annotations

import errno
import logging
import socket
import ssl
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
from coco_kp.keys.stores import vault_session
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from coco_kp.keys.stores.vault_session import VaultSession
from tests.sim.http_server import BreakOff, Reply, Request, http_server
from tests.support.abandoned import await_abandoned
from tests.support.connections import connections_to
from tests.support.refusing import refuse
from tests.support.traces import traces
from tests.unit.keys.stores.scripted_vault import TOKEN, ScriptedVault, errors, ok, reply

if TYPE_CHECKING:
    from collections.abc import Callable

    import hvac

KEK = bytes(range(100, 132))
READ = "GET /v1/kv/app"
LOOKUP = "GET /v1/auth/token/lookup-self"
APPROLE, KUBERNETES = "POST /v1/auth/approle/login", "POST /v1/auth/kubernetes/login"
SECRET_ID = "5a1f7b7e-0000-4000-8000-secretidofatest"
DENIED = errors(403, "1 error occurred:\n\t* permission denied\n\n")


def fetch() -> bytes:
    return open_store(parse_kek_reference("vault:///kv/app?kv=1")).fetch()


def refusal(kind: type[CocoKpError]) -> CocoKpError:
    with pytest.raises(kind) as error:
        fetch()
    assert type(error.value) is kind
    return error.value


def token_of(request: Request) -> str | None:
    return request.headers.get("X-Vault-Token")


def logged_in(token: str) -> Reply:
    return reply(200, {"auth": {"client_token": token, "lease_duration": 60}})


@pytest.fixture
def approle(vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch) -> ScriptedVault:
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("VAULT_ROLE_ID", "role")
    monkeypatch.setenv("VAULT_SECRET_ID", SECRET_ID)
    vault.on(READ, ok({"data": list(KEK)}))
    return vault


@pytest.fixture
def pod(vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedVault:
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("VAULT_K8S_ROLE", "build")
    (tmp_path / "token").write_text("jwt\n")
    monkeypatch.setattr(vault_session, "SERVICE_ACCOUNT", tmp_path / "token")
    vault.on(READ, ok({"data": list(KEK)}))
    return vault


def test_token_of_environment_goes_with_request(vault: ScriptedVault) -> None:
    vault.on(READ, ok({"data": list(KEK)}))
    assert fetch() == KEK
    assert [token_of(one) for one in vault.requests] == [TOKEN]


def test_token_that_vault_login_left_is_used(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    (tmp_path / "home/.vault-token").write_text("left\n")
    vault.on(READ, ok({"data": list(KEK)}))
    assert fetch() == KEK
    assert token_of(vault.requests[0]) == "left"


def test_closed_session_leaves_no_connection_to_vault(vault: ScriptedVault) -> None:
    vault.on(READ, ok({"data": list(KEK)}))
    held: list[hvac.Client] = []  # the collector would end the connections of one that nobody has

    def read(client: hvac.Client) -> object:
        held.append(client)
        return client.read("kv/app")

    session = VaultSession()
    for _ in range(2):  # one that was closed may be used again
        assert session.ask("read", read)["data"] == {"data": list(KEK)}
        assert connections_to(vault.url) == 1
        session.close()
        assert connections_to(vault.url) == 0


def test_namespace_goes_with_request(vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_NAMESPACE", "team/a")
    vault.on(READ, ok({"data": list(KEK)}))
    fetch()
    assert vault.requests[0].headers["X-Vault-Namespace"] == "team/a"


def test_approle_logs_in_once_for_many_requests(approle: ScriptedVault) -> None:
    approle.on(APPROLE, logged_in("new"))
    store = open_store(parse_kek_reference("vault:///kv/app?kv=1"))
    assert store.fetch() == store.fetch() == KEK
    assert approle.asked() == [APPROLE, READ, READ]
    assert approle.sent(APPROLE) == {"role_id": "role", "secret_id": SECRET_ID}
    assert [token_of(one) for one in approle.requests] == [None, "new", "new"]


def test_approle_reads_its_ids_from_files(
    approle: ScriptedVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VAULT_ROLE_ID", "VAULT_SECRET_ID"):
        monkeypatch.delenv(name)
        (tmp_path / name).write_text(f"{name} of file\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    approle.on(APPROLE, logged_in("new"))
    fetch()
    assert approle.sent(APPROLE) == {
        "role_id": "VAULT_ROLE_ID of file",
        "secret_id": "VAULT_SECRET_ID of file",
    }


def test_approle_refuses_a_file_that_is_too_long_for_an_id(
    approle: ScriptedVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its beginning was sent, and Vault's refusal said nothing of the file."""
    monkeypatch.delenv("VAULT_SECRET_ID")
    (tmp_path / "id").write_text("a" * 70_000)
    monkeypatch.setenv("VAULT_SECRET_ID_FILE", str(tmp_path / "id"))
    assert "id' is longer than the" in refusal(KekError).message
    assert approle.requests == []


def test_approle_logs_in_again_when_its_token_has_expired(approle: ScriptedVault) -> None:
    approle.on(APPROLE, logged_in("first"), logged_in("second"))
    approle.on(READ, ok({"data": list(KEK)}), DENIED, ok({"data": list(KEK)}))
    approle.on(LOOKUP, DENIED)
    store = open_store(parse_kek_reference("vault:///kv/app?kv=1"))
    assert store.fetch() == store.fetch() == KEK
    assert approle.asked() == [APPROLE, READ, READ, LOOKUP, APPROLE, READ]
    assert token_of(approle.requests[-1]) == "second"


def test_approle_without_secret_id_says_so(
    approle: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_SECRET_ID")
    error = refusal(KekError)
    assert error.message == "neither VAULT_SECRET_ID nor VAULT_SECRET_ID_FILE is set"
    assert error.hint == "AppRole needs both IDs"
    assert approle.requests == []


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (
            errors(400, f"invalid role or secret ID {SECRET_ID}"),
            "did not accept the login by AppRole: it knows no such role, or refuses the proof",
            "VAULT_SECRET_ID may have expired or been used up",
        ),
        (
            errors(404, 'no handler for route "auth/approle/login"'),
            "did not accept the login by AppRole: this method is not enabled",
            "run `vault auth enable approle`",
        ),
        (reply(200, {"auth": None}), "what answers there does not speak Vault's protocol", "check"),
    ],
)
def test_refused_approle_says_why_without_secret_id(
    approle: ScriptedVault, answer: Reply, message: str, hint: str
) -> None:
    approle.on(APPROLE, answer)
    error = refusal(RemoteError)
    assert message in error.message
    assert hint in error.hint
    assert SECRET_ID not in str(error)


def test_kubernetes_logs_in_with_service_account(pod: ScriptedVault) -> None:
    pod.on(KUBERNETES, logged_in("new"))
    assert fetch() == KEK
    assert pod.sent(KUBERNETES) == {"role": "build", "jwt": "jwt"}


def test_refused_kubernetes_login_names_what_to_check(pod: ScriptedVault) -> None:
    pod.on(KUBERNETES, errors(403, "permission denied"))
    error = refusal(RemoteError)
    assert "did not accept the login by Kubernetes" in error.message
    assert error.hint == "the role must be bound to this pod's service account and namespace"


def test_missing_token_names_all_ways_to_one(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    error = refusal(KekError)
    assert error.message == f"there is no token for Vault at {vault.url}"
    for way in ("vault login", "VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_K8S_ROLE"):
        assert way in error.hint
    assert vault.requests == []


def test_expired_token_is_told_from_missing_policy(vault: ScriptedVault) -> None:
    vault.on(READ, DENIED)
    vault.on(LOOKUP, DENIED)
    error = refusal(RemoteError)
    assert error.message == (
        f"Vault at {vault.url} did not read 'kv/app': the token has expired, was revoked, or is "
        "that of another Vault"
    )
    assert "get a new one" in error.hint
    vault.on(LOOKUP, ok({"ttl": 3600}))
    error = refusal(RemoteError)
    assert error.message == (
        f"Vault at {vault.url} did not read 'kv/app': permission denied "
        "('1 error occurred: * permission denied')"
    )
    assert "policies" in error.hint


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (errors(503, "Vault is sealed"), "Vault is sealed", "vault operator unseal"),
        (errors(501, "Vault is not initialized"), "not initialized", "vault operator init"),
        (errors(503, "being upgraded"), "down for maintenance", "try again later"),
        (errors(429, "request path quota exceeded"), "too many requests", "try again later"),
        (errors(500, "storage is\nfull"), "did not read 'kv/app': 'storage is full'", "log"),
        (errors(405, "unsupported operation"), "'unsupported operation'", "log"),
        (Reply(307, {"Location": "https://other/v1/x"}), "redirects to another", "VAULT_ADDR"),
        (Reply(200, {}, b"<html>hello"), "does not speak Vault's protocol", "check host"),
        (reply(200, ["a list"]), "does not speak Vault's protocol", "check host"),
        (reply(404, ["a list"]), "does not speak Vault's protocol", "check host"),
        (reply(400, {"errors": [{"a": 1}]}), "does not speak Vault's protocol", "check host"),
        (Reply(200, {}, b"x" * 1024 * 1024 + b"x"), "is longer than 1048576 bytes", ""),
    ],
)
def test_failure_of_vault_has_its_own_words(
    vault: ScriptedVault, answer: Reply, message: str, hint: str
) -> None:
    vault.on(READ, answer)
    error = refusal(RemoteError)
    assert message in error.message
    assert hint in error.hint


def test_redirect_takes_token_nowhere(vault: ScriptedVault) -> None:
    asked: list[Request] = []

    def other(request: Request) -> Reply:
        asked.append(request)
        return ok({"data": list(KEK)})

    with http_server(other) as url:
        vault.on(READ, Reply(307, {"Location": f"{url}/v1/kv/app"}))
        refusal(RemoteError)
    assert asked == []


def test_words_of_vault_are_cut_and_lose_what_looks_like_a_key(vault: ScriptedVault) -> None:
    vault.on(READ, errors(500, f"\x1b[31m{'A' * 80} {'word ' * 60}"))
    error = refusal(RemoteError)
    assert "AAAA" not in error.message
    assert "\x1b" not in error.message
    assert len(error.message) < 250


def test_vault_that_is_not_there_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, vault: ScriptedVault
) -> None:
    with socket.socket() as closed:  # it has the port, and does not listen
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("VAULT_ADDR", url)
        error = refusal(UnreachableError)
    assert error.message == f"Vault at {url} did not read 'kv/app': connection refused"
    monkeypatch.setenv("VAULT_ADDR", vault.url)
    vault.on(READ, BreakOff())
    assert "the connection was closed" in refusal(UnreachableError).message


def test_vault_that_trickles_is_given_up(vault: ScriptedVault) -> None:
    body = reply(200, {"data": {"data": list(KEK)}}).body
    vault.on(READ, Reply(200, {"Content-Type": "application/json"}, body, delay=0.01))
    with within(0.5):
        assert "no answer in time" in refusal(UnreachableError).message
    await_abandoned()


def test_certificate_of_unknown_authority_is_refused_until_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with http_server(lambda _: ok({"data": list(KEK)}), tls=context) as url:
        host = url.removeprefix("https://")
        store = open_store(parse_kek_reference(f"vault://{host}/kv/app?kv=1"))
        with pytest.raises(RemoteError) as error:
            store.fetch()
        assert "the server's certificate is not trusted" in error.value.message
        assert "VAULT_CACERT" in error.value.hint
        monkeypatch.setenv("VAULT_CACERT", str(tmp_path / "ca.pem"))
        store = open_store(parse_kek_reference(f"vault://{host}/kv/app?kv=1"))
        assert store.fetch() == KEK


def test_authority_file_that_is_missing_is_named(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_CACERT", "/absent.pem")
    assert "'/absent.pem': no such file" in refusal(InputError).message
    assert vault.requests == []


def test_authority_file_that_cannot_be_looked_at_is_not_called_missing(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    monkeypatch.setenv("VAULT_CACERT", str(file))
    refuse(monkeypatch, "stat", lambda path: path == str(file), errno.EACCES)
    assert f"VAULT_CACERT or VAULT_CAPATH names '{file}': permission denied" in (
        refusal(InputError).message
    )
    assert vault.requests == []


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes"])
def test_unverified_server_is_refused(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("VAULT_SKIP_VERIFY", value)
    error = refusal(RefusedError)
    assert error.message == (
        "VAULT_SKIP_VERIFY is set: a key would go to, or come from, whoever poses as Vault"
    )
    assert "VAULT_CACERT" in error.hint
    assert vault.requests == []


def test_verification_that_is_not_skipped_is_no_fault(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "false")
    vault.on(READ, ok({"data": list(KEK)}))
    assert fetch() == KEK


def test_plain_http_beyond_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example:8200")
    error = refusal(RefusedError)
    assert error.message == (
        "VAULT_ADDR 'http://vault.example:8200' is plain http: anyone on the way can read token "
        "and key"
    )
    assert error.hint == "use https"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("vault.example", "https://vault.example:8200"),
        ("vault.example:443", "https://vault.example:443"),
        ("[::1]:8200", "https://[::1]:8200"),
    ],
)
def test_host_of_reference_means_https_and_port_of_vault(host: str, address: str) -> None:
    assert VaultSession(host).address == address


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "no Vault is named"),
        ("vault.example:8200", "VAULT_ADDR: expected an http or https URL"),
        ("https://user:secret@vault.example", "carries a user name or password"),
    ],
)
def test_address_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("VAULT_ADDR", value)
    error = refusal(InputError)
    assert message in error.message
    assert "secret" not in str(error)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "é"])
def test_token_that_no_header_may_have_is_not_shown(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", token)
    assert refusal(KekError).message == "the Vault token has characters that no token has"
    assert vault.requests == []


def test_proxy_gets_no_request_for_this_machine(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    vault.on(READ, ok({"data": list(KEK)}))
    assert fetch() == KEK


def uses(vault: ScriptedVault) -> list[Callable[[], object]]:
    """All that a store and a wrapping key do, each answered well."""
    text = {"plaintext": "", "ciphertext": "vault:v1:AAAA", "type": "aes256-gcm96"}
    for path in ("encrypt/prod", "decrypt/prod"):
        vault.on(f"POST /v1/transit/{path}", ok(text))
    vault.on("GET /v1/transit/keys/prod", ok(text))
    vault.on("GET /v1/sys/internal/ui/mounts/kv/app", ok({"type": "kv"}))
    vault.on("POST /v1/kv/app", Reply(204))
    vault.on(READ, errors(404), ok({"data": list(KEK)}))
    store = open_store(parse_kek_reference("vault:///kv/app?kv=1"))
    key = open_wrapping_key(parse_wrapping_reference("hashivault://prod"))
    return [
        lambda: store.keep(KEK),
        store.fetch,
        store.check,
        lambda: key.encrypt(KEK, {"a": "b"}),
        lambda: key.decrypt(b"vault:v1:AAAA", {}),
        key.check,
        lambda: repr(store),
        lambda: repr(key),
    ]


def test_log_and_reprs_have_no_secret_whatever_is_logged(
    approle: ScriptedVault, caplog: pytest.LogCaptureFixture
) -> None:
    """An application with coco-kp in it may log all that libraries say."""
    caplog.set_level(logging.DEBUG)
    approle.on(APPROLE, logged_in(TOKEN))
    secrets = traces(KEK) | {TOKEN.encode(), SECRET_ID.encode()}
    results = [use() for use in uses(approle)]
    reprs = [result for result in results if isinstance(result, str)]
    assert "DEBUG" in caplog.text
    for text in (caplog.text, *reprs):
        assert not [secret for secret in secrets if secret in text.encode()]
    assert len(reprs) == 4
