"""The simulated Vault answers hvac, Vault's usual client in Python, as Vault 1.21.4 does."""

from __future__ import annotations

import time
from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING, Any

import hvac
import pytest

from tests.sim.vault import ROOT_TOKEN, SimulatedVault, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS = b64encode(b"o" * 193).decode()
"""As long as the private options of a layer."""


@pytest.fixture
def client(vault: SimulatedVault) -> Iterator[Any]:
    """With the root's token, that may do everything."""
    connected = hvac.Client(vault.url, ROOT_TOKEN)
    yield connected
    connected.adapter.close()


def add_app_role(vault: SimulatedVault) -> tuple[str, str]:
    """Make a role whose tokens may not read ``kv/other``, and return role and secret ID."""
    vault.app_roles["role-id"] = "secret-id"
    vault.token_ttl = 3600
    vault.denied.add("kv/other")
    return "role-id", "secret-id"


def read_version(client: Any, version: int | None) -> Any:
    # what the last argument says is what happens without it, but hvac warns then
    read = client.secrets.kv.v2.read_secret_version("kek", version, "secret", True)
    return read["data"]


class TestKv1:
    def test_list_of_numbers_is_read_as_it_was_written(self, client: Any) -> None:
        """As Trustee keeps a key there."""
        numbers = {"data": list(range(32))}
        answer = client.secrets.kv.v1.create_or_update_secret(
            "default/key/1", numbers, "POST", "kv"
        )
        assert answer.status_code == 204
        read = client.secrets.kv.v1.read_secret("default/key/1", "kv")
        assert (read["data"], read["auth"], read["warnings"]) == (numbers, None, None)
        assert (read["lease_duration"], read["mount_type"]) == (32 * 24 * 3600, "kv")

    def test_missing_secret_is_not_found(self, client: Any) -> None:
        with pytest.raises(hvac.exceptions.InvalidPath) as error:
            client.secrets.kv.v1.read_secret("none", "kv")
        assert error.value.errors == []

    def test_write_without_members_is_refused(self, client: Any) -> None:
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            client.secrets.kv.v1.create_or_update_secret("none", {}, "POST", "kv")
        assert error.value.errors == ["missing data fields"]


class TestKv2:
    def test_each_write_makes_a_version(self, client: Any) -> None:
        for number in (1, 2):
            written = client.secrets.kv.v2.create_or_update_secret("kek", {"key": f"{number}"})
            assert written["data"]["version"] == number
        for asked, number in ((None, 2), (1, 1)):
            read = read_version(client, asked)
            assert read["data"] == {"key": f"{number}"}
            assert read["metadata"].keys() == {
                *("created_time", "custom_metadata", "deletion_time", "destroyed", "version"),
            }
            assert read["metadata"]["version"] == number

    def test_write_that_expects_no_secret_is_refused_where_there_is_one(self, client: Any) -> None:
        client.secrets.kv.v2.create_or_update_secret("kek", {"key": "a"}, cas=0)
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            client.secrets.kv.v2.create_or_update_secret("kek", {"key": "b"}, cas=0)
        assert error.value.errors == ["check-and-set parameter did not match the current version"]

    @pytest.mark.parametrize("version", [None, 2])
    def test_missing_secret_or_version_is_not_found(self, client: Any, version: int | None) -> None:
        if version is not None:
            client.secrets.kv.v2.create_or_update_secret("kek", {"key": "a"})
        with pytest.raises(hvac.exceptions.InvalidPath) as error:
            read_version(client, version)
        assert error.value.errors == []

    def test_path_of_version_1_is_warned_of(self, client: Any) -> None:
        with pytest.raises(hvac.exceptions.InvalidPath) as error:
            client.secrets.kv.v1.read_secret("kek", "secret")
        assert "Invalid path for a versioned K/V secrets engine" in error.value.text

    @pytest.mark.parametrize(("mount", "version"), [("kv", "1"), ("secret", "2")])
    def test_mount_tells_its_version(self, client: Any, mount: str, version: str) -> None:
        found = client.read(f"sys/internal/ui/mounts/{mount}")["data"]
        assert (found["path"], found["type"]) == (f"{mount}/", "kv")
        assert found["options"] == {"version": version}


class TestTransit:
    @pytest.fixture
    def transit(self, client: Any) -> Any:
        client.write_data("transit/keys/plain", data={})
        client.write_data("transit/keys/derived", data={"derived": True})
        return client.secrets.transit

    @pytest.mark.parametrize(
        ("name", "bound"),
        [
            ("plain", {}),
            ("plain", {"associated_data": "bmFtZQ=="}),
            ("derived", {"context": "bmFtZQ=="}),
        ],
        ids=["nothing", "associated data", "context"],
    )
    def test_ciphertext_opens_with_what_it_was_bound_to(
        self, transit: Any, name: str, bound: dict[str, str]
    ) -> None:
        sealed = transit.encrypt_data(name, OPTIONS, **bound)["data"]
        assert sealed.keys() == {"ciphertext", "key_version"}
        assert sealed["ciphertext"].startswith("vault:v1:")
        opened = transit.decrypt_data(name, sealed["ciphertext"], **bound)
        assert opened["data"] == {"plaintext": OPTIONS}
        for other in (dict.fromkeys(bound, "b3RoZXI="), {}) if bound else ():
            with pytest.raises(hvac.exceptions.InvalidRequest):
                transit.decrypt_data(name, sealed["ciphertext"], **other)

    def test_context_binds_nothing_under_key_that_is_not_derived(self, transit: Any) -> None:
        sealed = transit.encrypt_data("plain", OPTIONS, context="bmFtZQ==")["data"]["ciphertext"]
        opened = transit.decrypt_data("plain", sealed, context="b3RoZXI=")
        assert opened["data"]["plaintext"] == OPTIONS

    def test_rewrapped_ciphertext_is_of_newest_version(self, transit: Any) -> None:
        sealed = transit.encrypt_data("derived", OPTIONS, context="bmFtZQ==")["data"]["ciphertext"]
        transit.rotate_key("derived")
        again = transit.rewrap_data("derived", sealed, context="bmFtZQ==")["data"]
        assert again["ciphertext"].startswith("vault:v2:")
        for each in (sealed, again["ciphertext"]):
            opened = transit.decrypt_data("derived", each, context="bmFtZQ==")
            assert opened["data"]["plaintext"] == OPTIONS

    def test_ciphertext_bound_to_associated_data_is_not_rewrapped(
        self, client: Any, transit: Any
    ) -> None:
        """Vault's ``rewrap`` takes none, up to 1.21."""
        bound = {"associated_data": "bmFtZQ=="}
        sealed = transit.encrypt_data("plain", OPTIONS, **bound)["data"]["ciphertext"]
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            client.write_data("transit/rewrap/plain", data={"ciphertext": sealed, **bound})
        assert error.value.errors == ["cipher: message authentication failed"]

    @pytest.mark.parametrize(
        ("name", "altered", "text"),
        [
            ("plain", lambda text: text[:-8] + "AAAAAAA=", "cipher: message authentication failed"),
            ("plain", lambda text: text.removeprefix("vault:"), "invalid ciphertext: no prefix"),
            ("plain", lambda _: "vault:v1", "invalid ciphertext: wrong number of fields"),
            ("plain", lambda _: "vault:v2:AAAA", "invalid ciphertext: version is too new"),
            ("plain", lambda _: "vault:v1:*", "invalid ciphertext: could not decode base64"),
            ("plain", lambda _: "", "missing ciphertext to decrypt"),
            ("none", lambda text: text, "encryption key not found"),
            ("derived", lambda text: text, "missing 'context' for key derivation"),
        ],
        ids=["tag", "prefix", "fields", "version", "base64", "empty", "key", "context"],
    )
    def test_ciphertext_that_was_altered_is_refused(
        self, transit: Any, name: str, altered: Any, text: str
    ) -> None:
        sealed = transit.encrypt_data("plain", OPTIONS)["data"]["ciphertext"]
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            transit.decrypt_data(name, altered(sealed))
        (found,) = error.value.errors
        assert found.startswith(text)

    def test_key_that_is_not_there_is_made_by_encrypting_with_it(self, transit: Any) -> None:
        """A mistyped name is no error to who may make keys."""
        transit.encrypt_data("typo", OPTIONS)
        described = transit.read_key("typo")["data"]
        assert (described["type"], described["derived"]) == ("aes256-gcm96", False)
        transit.encrypt_data("another", OPTIONS, context="bmFtZQ==")
        assert transit.read_key("another")["data"]["derived"] is True

    def test_key_is_described(self, transit: Any) -> None:
        described = transit.read_key("derived")["data"]
        expected = {"name": "derived", "type": "aes256-gcm96", "derived": True} | {
            "latest_version": 1,
            "min_decryption_version": 1,
            "supports_encryption": True,
            "exportable": False,
        }
        assert described.items() >= expected.items()
        with pytest.raises(hvac.exceptions.InvalidPath):
            transit.read_key("none")


class TestAccess:
    def test_app_role_logs_in_with_its_secret_id(self, client: Any, vault: SimulatedVault) -> None:
        role, secret = add_app_role(vault)
        auth = client.auth.approle.login(role, secret, use_token=False)["auth"]
        assert auth["policies"] == ["coco-kp", "default"]
        assert auth["client_token"].startswith("hvs.")
        assert (auth["lease_duration"], auth["renewable"]) == (3600, True)

    @pytest.mark.parametrize("wrong", ["role", "secret"])
    def test_app_role_with_wrong_id_is_refused(
        self, client: Any, vault: SimulatedVault, wrong: str
    ) -> None:
        role, secret = add_app_role(vault)
        ids = ("other", secret) if wrong == "role" else (role, "other")
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            client.auth.approle.login(*ids)
        assert error.value.errors == ["invalid role or secret ID"]

    def test_token_of_role_may_do_only_what_its_policy_says(
        self, client: Any, vault: SimulatedVault
    ) -> None:
        client.secrets.kv.v1.create_or_update_secret("other", {"data": [1]}, "POST", "kv")
        role, secret = add_app_role(vault)
        token = client.auth.approle.login(role, secret, use_token=False)["auth"]["client_token"]
        client.token = token
        found = client.auth.token.lookup_self()["data"]
        assert (found["id"], found["display_name"]) == (token, "approle")
        assert (found["policies"], found["type"]) == (["coco-kp", "default"], "service")
        assert 0 < found["ttl"] <= 3600
        with pytest.raises(hvac.exceptions.Forbidden) as error:
            client.secrets.kv.v1.read_secret("other", "kv")
        assert error.value.errors == ["1 error occurred:\n\t* permission denied\n\n"]

    def test_unknown_token_is_refused(self, client: Any) -> None:
        client.token = "hvs.unknown"
        with pytest.raises(hvac.exceptions.Forbidden) as error:
            client.auth.token.lookup_self()
        assert error.value.errors == [
            "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
        ]

    def test_token_that_expired_is_refused_as_an_unknown_one(
        self, client: Any, vault: SimulatedVault
    ) -> None:
        vault.tokens["hvs.expired"] = Token("token", time.time() - 1)
        client.token = "hvs.expired"
        with pytest.raises(hvac.exceptions.Forbidden) as error:
            client.secrets.kv.v1.read_secret("kek", "kv")
        assert error.value.errors == [
            "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
        ]

    def test_request_without_token_is_refused(self, client: Any) -> None:
        client.token = None
        with pytest.raises(hvac.exceptions.Forbidden) as error:
            client.secrets.kv.v1.read_secret("kek", "kv")
        assert error.value.errors == ["permission denied"]

    def test_unknown_mount_is_not_found(self, client: Any) -> None:
        with pytest.raises(hvac.exceptions.InvalidPath) as error:
            client.secrets.kv.v1.read_secret("kek", "nowhere")
        assert error.value.errors == ['no handler for route "nowhere/kek". route entry not found.']

    def test_unknown_kubernetes_role_is_refused(self, client: Any) -> None:
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            client.auth.kubernetes.login("nobody", "e30.e30.c2ln")
        assert error.value.errors == ['invalid role name "nobody"']

    def test_sealed_vault_answers_nothing_but_its_status(self, client: Any) -> None:
        client.sys.seal()
        assert client.seal_status["sealed"] is True
        with pytest.raises(hvac.exceptions.VaultDown) as error:
            client.secrets.kv.v1.read_secret("kek", "kv")
        assert error.value.errors == ["Vault is sealed"]
        assert client.sys.read_health_status(method="GET").status_code == 503


class TestAccessElsewhere:
    """What needs Vault Enterprise or a Kubernetes cluster."""

    def test_service_account_logs_in_with_its_token_alone(self, vault: SimulatedVault) -> None:
        vault.service_accounts["builder"] = "e30.e30.c2ln"
        with closing(hvac.Client(vault.url).adapter) as adapter:
            kubernetes = hvac.api.auth_methods.Kubernetes(adapter)
            auth = kubernetes.login("builder", "e30.e30.c2ln")["auth"]
            assert auth["metadata"] == {"role": "builder"}
            assert auth["client_token"] in vault.tokens
            with pytest.raises(hvac.exceptions.Forbidden) as error:
                kubernetes.login("builder", "e30.e30.b3RoZXI")
        assert error.value.errors == ["permission denied"]

    @pytest.mark.parametrize("named", ["", "other"])
    def test_token_of_namespace_is_no_good_in_another(
        self, vault: SimulatedVault, named: str
    ) -> None:
        vault.namespace = "team"
        vault.secrets["kv/kek"] = [{"data": [1]}]
        for namespace in ("team", named):
            client = hvac.Client(vault.url, ROOT_TOKEN, namespace=namespace or None)
            with closing(client.adapter):
                if namespace == "team":
                    assert client.secrets.kv.v1.read_secret("kek", "kv")["data"] == {"data": [1]}
                else:
                    with pytest.raises(hvac.exceptions.Forbidden):
                        client.secrets.kv.v1.read_secret("kek", "kv")

    def test_key_that_caller_may_not_make_is_denied(self, vault: SimulatedVault) -> None:
        vault.transit.may_create = False
        client = hvac.Client(vault.url, ROOT_TOKEN)
        with closing(client.adapter), pytest.raises(hvac.exceptions.Forbidden):
            client.secrets.transit.encrypt_data("typo", OPTIONS)
