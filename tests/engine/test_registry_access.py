"""Options of access: which registry they are about, where credentials are from, what errors say."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.sim.http_server import Reply, http_server
from tests.sim.registry import Registry, error, serve
from tests.support.command import KID, Command
from tests.support.image import Image

LOGIN = ("user", "a long password")
CREDS = ":".join(LOGIN)
PLAIN_HTTP = ("--src-tls-verify=false", "--dest-tls-verify=false")
OTHER_KID = "kbs:///default/key/2"


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def registry() -> Registry:
    return Registry(basic=LOGIN)


@pytest.fixture
def pushed(host: str, plain: Image, key: Path, command: Command) -> str:
    target = f"docker://{host}/team/app:1"
    command(
        *("encrypt", plain.reference, target, "--keyid", KID, "--keypath", key),
        *("--dest-tls-verify=false", "--dest-creds", CREDS),
    )
    return target


class TestByRegistry:
    def test_reuse_at_destination_uses_its_options(
        self, pushed: str, plain: Image, key: Path, command: Command
    ) -> None:
        outcome = command(
            *("encrypt", plain.reference, pushed, "--keyid", KID, "--keypath", key),
            *("--dest-tls-verify=false", "--dest-creds", CREDS, "--reuse", pushed),
        )
        assert "4 reused" in outcome.out

    def test_base_at_destination_uses_its_options(
        self, pushed: str, host: str, plain: Image, key: Path, command: Command
    ) -> None:
        base = f"docker://{host}/team/base:1"
        creds = ("--src-creds", CREDS, "--dest-creds", CREDS)
        command("decrypt", pushed, base, "--keypath", key, *PLAIN_HTTP, *creds)
        outcome = command(
            *("encrypt", plain.reference, pushed, "--keyid", KID, "--keypath", key),
            *("--dest-tls-verify=false", "--dest-creds", CREDS, "--skip-base", base),
            ok=False,
        )
        assert "the image has no layer to encrypt" in outcome.err, "the base was not read"

    @pytest.mark.parametrize("side", ["src", "dest"])
    def test_rewrap_in_place_uses_options_of_either_side(
        self, pushed: str, key: Path, command: Command, side: str
    ) -> None:
        command(
            *("rewrap", pushed, "--keypath", key, "--to-keyid", "kbs:///default/key/2"),
            *("--to-keypath", key, f"--{side}-tls-verify=false", f"--{side}-creds", CREDS),
        )

    def test_credentials_of_one_registry_go_to_no_other(
        self, plain: Image, key: Path, command: Command, tmp_path: Path
    ) -> None:
        third = Registry(basic=LOGIN)
        with serve(third) as address:
            outcome = command(
                *("encrypt", plain.reference, f"oci:{tmp_path}/new", "--keyid", KID),
                *("--keypath", key, "--skip-base", f"docker://{address}/team/base:1"),
                *(*PLAIN_HTTP, "--src-creds", CREDS, "--dest-creds", CREDS),
                ok=False,
            )
        assert outcome.code == 6
        assert "TLS failed" in outcome.err, "plain http was allowed for another registry"
        assert not third.seen


class TestCredentials:
    def test_creds_are_read_from_stdin(self, pushed: str, key: Path, command: Command) -> None:
        own = ("--tls-verify=false", "--keypath", key, "--creds", "-")
        command("verify", pushed, *own, stdin=f"{CREDS}\n")

    def test_creds_of_both_sides_are_two_lines_of_stdin(
        self, pushed: str, host: str, key: Path, command: Command
    ) -> None:
        command(
            *("decrypt", pushed, f"docker://{host}/team/plain:1", "--keypath", key, *PLAIN_HTTP),
            *("--src-creds", "-", "--dest-creds", "-"),
            stdin=f"{CREDS}\r\n{CREDS}\n",
        )

    def test_options_are_read_from_the_environment(
        self, pushed: str, key: Path, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COCO_KP_VERIFY_CREDS", CREDS)
        monkeypatch.setenv("COCO_KP_VERIFY_TLS_VERIFY", "false")
        command("verify", pushed, "--keypath", key)

    def test_registry_token_is_sent_as_it_is(
        self, pushed: str, command: Command, registry: Registry, key: Path
    ) -> None:
        basic = f"Basic {base64.b64encode(CREDS.encode()).decode()}"

        def guard(request: object) -> Reply | None:
            headers = getattr(request, "headers", {})
            if headers.get("Authorization") != "Bearer t0ken":
                return Reply(401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/t"'})
            headers["Authorization"] = basic
            return None

        registry.faults = [guard]
        option = ("--tls-verify=false", "--registry-token")
        command("verify", pushed, "--keypath", key, *option, "t0ken")
        outcome = command("inspect", pushed, *option, "another", ok=False)
        assert "the credentials from --registry-token were refused" in outcome.err
        assert "another" not in outcome.err


REMOTE = ("--src-tls-verify=false", "--src-creds", CREDS)
FOR_DESTINATION = ("--dest-tls-verify=false", "--dest-creds", CREDS)


class TestPolicy:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (("encrypt",), ("oci:new", *REMOTE, "--keyid", KID, "--keep-encrypted")),
            (("decrypt",), ("oci:new", *REMOTE)),
            (("rewrap",), ("oci:new", *REMOTE, "--to-keyid", OTHER_KID, "--to-keypath", "kek")),
            (("rewrap",), (*FOR_DESTINATION, "--to-keyid", OTHER_KID, "--to-keypath", "kek")),
            (("encrypt", "plain", "new", "--keyid", KID, "--reuse"), REMOTE),
            (("encrypt", "plain", "new", "--keyid", KID, "--skip-base"), REMOTE),
        ],
    )
    def test_image_that_policy_rejects_is_refused_and_unchecked_signature_warned_of(
        self,
        plain: Image,
        pushed: str,
        key: Path,
        command: Command,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        before: tuple[str, ...],
        after: tuple[str, ...],
    ) -> None:
        """What ``--reuse`` and ``--skip-base`` read was not asked about."""
        monkeypatch.chdir(tmp_path)
        places = {"plain": plain.reference, "new": "oci:new"}
        words = [*(places.get(word, word) for word in before), pushed, *after, "--keypath", key]
        policy = tmp_path / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "reject"}]}')
        outcome = command(*words, ok=False)
        assert outcome.code == 7
        assert f"{pushed} is rejected by the policy '{policy}'" in outcome.err
        policy.write_text('{"default": [{"type": "signedBy", "keyPath": "/key"}]}')
        assert "warning: the signature that" in command(*words, ok=False).err

    @pytest.mark.parametrize("look", ["inspect", "verify"])
    def test_who_only_looks_is_not_asked_for_policy(
        self, pushed: str, key: Path, command: Command, tmp_path: Path, look: str
    ) -> None:
        policy = tmp_path / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "reject"}]}')
        opening = ("--keypath", key) if look == "verify" else ()
        command(look, pushed, "--tls-verify=false", "--creds", CREDS, *opening)


class TestErrors:
    def test_plain_http_answer_is_shown_beside_that_over_tls(self, command: Command) -> None:
        with http_server(lambda _: error(503, "DOWN", "for repairs")) as base:
            host = base.removeprefix("http://")
            outcome = command(
                *("inspect", f"docker://{host}/a/b:1", "--tls-verify=false", "--retries", "0"),
                ok=False,
            )
        assert "TLS failed" in outcome.err
        assert "over plain http" in outcome.err
        assert "503 Service Unavailable: DOWN: for repairs" in outcome.err
