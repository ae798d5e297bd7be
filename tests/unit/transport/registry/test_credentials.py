"""Files and helpers with credentials: where they are looked for, in which order."""

from __future__ import annotations

import base64
import json
import math
import os
import pwd
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from coco_kp.deadline import Caller, within
from coco_kp.errors import InputError, RemoteError
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import (
    Access,
    Credentials,
    check_source,
    open_source,
    parse_credentials,
)
from coco_kp.transport.registry.credentials import Logins
from tests.sim.registry import Registry
from tests.support.patience import ends
from tests.support.stored import image

APP = RegistryReference("h.example:5000", "team/app", "v1")
HUB = RegistryReference("docker.io", "library/nginx", "latest")


def find(image: RegistryReference, access: Access) -> Credentials | None:
    return Logins().find(image.host, image.repository, access)


def auth(user: str, password: str = "pw") -> dict[str, str]:  # noqa: S107
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def user(image: RegistryReference = APP, access: Access | None = None) -> str | None:
    found = find(image, access or Access())
    return found.username if found else None


class TestFiles:
    def test_logins_searches_auth_files_in_order(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert user() is None
        write(home / ".docker" / "config.json", {"auths": {"h.example:5000": auth("docker")}})
        assert user() == "docker"
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        assert user() is None
        write(tmp_path / "docker" / "config.json", {"auths": {"h.example:5000": auth("docker2")}})
        assert user() == "docker2"
        write(
            home / ".config" / "containers" / "auth.json",
            {"auths": {"h.example:5000": auth("config")}},
        )
        assert user() == "config"
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        write(
            tmp_path / "run" / "containers" / "auth.json",
            {"auths": {"h.example:5000": auth("runtime")}},
        )
        assert user() == "runtime"
        named = write(tmp_path / "named.json", {"auths": {"h.example:5000": auth("named")}})
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(named))
        assert user() == "named"
        own = write(tmp_path / "own.json", {"auths": {"h.example:5000": auth("own")}})
        assert user(access=Access(authfile=own)) == "own"
        given = Access(Credentials("given", "pw"), authfile=own)
        assert user(access=given) == "given"

    def test_logins_skips_auth_files_without_the_registry(self, home: Path, tmp_path: Path) -> None:
        write(
            home / ".config" / "containers" / "auth.json", {"auths": {"other.example": auth("x")}}
        )
        write(home / ".docker" / "config.json", {"auths": {"h.example:5000": auth("docker")}})
        assert user() == "docker"
        own = write(tmp_path / "own.json", {"auths": {}})
        assert user(access=Access(authfile=own)) is None, "another file than the named one was read"

    def test_logins_requires_named_authfile_to_exist(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            user(access=Access(authfile=tmp_path / "none.json"))

    @pytest.mark.parametrize(
        ("keys", "image", "expected"),
        [
            (["h.example:5000"], APP, "h.example:5000"),
            (["h.example"], APP, None),
            (["h.example:5000", "h.example:5000/team"], APP, "h.example:5000/team"),
            (["h.example:5000/team/app", "h.example:5000/team"], APP, "h.example:5000/team/app"),
            (["h.example:5000/team/ap", "h.example:5000/tea"], APP, None),
            (["https://h.example:5000/v1/"], APP, "https://h.example:5000/v1/"),
            (["https://index.docker.io/v1/"], HUB, "https://index.docker.io/v1/"),
            (["index.docker.io"], HUB, "index.docker.io"),
            (["docker.io/library"], HUB, "docker.io/library"),
            (["docker.io"], APP, None),
        ],
    )
    def test_logins_prefers_most_specific_key_of_auth_file(
        self, tmp_path: Path, keys: list[str], image: RegistryReference, expected: str | None
    ) -> None:
        names = {key: f"user{number}" for number, key in enumerate(keys)}
        own = write(tmp_path / "own.json", {"auths": {k: auth(name) for k, name in names.items()}})
        assert user(image, Access(authfile=own)) == (expected and names[expected])

    def test_logins_reads_password_with_colons(self, tmp_path: Path) -> None:
        own = write(tmp_path / "own.json", {"auths": {"h.example:5000": auth("u", "a:b:ü")}})
        assert find(APP, Access(authfile=own)) == Credentials("u", "a:b:ü")

    def test_logins_reads_identity_token(self, tmp_path: Path) -> None:
        entry = {**auth("00000000-0000-0000-0000-000000000000", ""), "identitytoken": "refresh"}
        own = write(tmp_path / "own.json", {"auths": {"h.example:5000": entry}})
        found = find(APP, Access(authfile=own))
        assert found == Credentials("<token>", "", "refresh")

    @pytest.mark.parametrize("entry", [None, {}, {"auth": ""}, {"auth": 5}, {"email": "x"}])
    def test_logins_ignores_entry_without_credentials(self, tmp_path: Path, entry: object) -> None:
        own = write(tmp_path / "own.json", {"auths": {"h.example:5000": entry}})
        assert user(access=Access(authfile=own)) is None

    @pytest.mark.parametrize(
        "document",
        [
            {"auths": None, "credHelpers": None, "credsStore": None},
            {"auths": {APP.host: {"auth": None, "identitytoken": None}}},
            {"credHelpers": {APP.host: None}},
        ],
    )
    def test_logins_takes_null_for_absent(self, tmp_path: Path, document: object) -> None:
        own = write(tmp_path / "own.json", document)
        assert user(access=Access(authfile=own)) is None

    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    def test_logins_skips_line_feeds_in_base64(self, tmp_path: Path, ending: str) -> None:
        text = base64.b64encode(b"me:a long password").decode()
        entry = {"auth": f"{text[:8]}{ending}{text[8:]}{ending}"}
        own = write(tmp_path / "own.json", {"auths": {APP.host: entry}})
        assert find(APP, Access(authfile=own)) == Credentials("me", "a long password")

    @pytest.mark.parametrize(
        ("document", "words"),
        [
            ([], "not a JSON object"),
            ({"auths": []}, "is not an object"),
            ({"auths": {"h.example:5000": 5}}, "is not an object"),
            ({"auths": {"h.example:5000": {"auth": "c2VjcmV0LXBhc3N3b3Jk!"}}}, "not base64"),
            ({"auths": {"h.example:5000": {"auth": "c2VjcmV0LXBhc3N3b3Jk"}}}, "'user:password'"),
            ({"auths": {"h.example:5000": {"auth": "/////w=="}}}, "is not text"),
            ({"credHelpers": 5}, "is not an object"),
            ({"credHelpers": {"h.example:5000": 5}}, "not the name of a credential helper"),
            ({"credHelpers": {"h.example:5000": "../x"}}, "not the name of a credential helper"),
            ({"credsStore": "a b"}, "not the name of a credential helper"),
        ],
    )
    def test_logins_refuses_malformed_auth_file_without_showing_secret(
        self, tmp_path: Path, document: object, words: str
    ) -> None:
        own = write(tmp_path / "own.json", document)
        with pytest.raises(InputError, match=words) as caught:
            user(access=Access(authfile=own))
        assert "c2VjcmV0" not in str(caught.value)
        assert "secret-password" not in str(caught.value)


class TestHelpers:
    @pytest.fixture
    def helper(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A helper that knows two registries, by the protocol of docker-credential-helpers."""
        program = tmp_path / "bin" / "docker-credential-test"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            "read server\n"
            '[ "$1" = get ] || exit 9\n'
            'case "$server" in\n'
            'h.example:5000) echo \'{"ServerURL":"x","Username":"me","Secret":"pw"}\';;\n'
            "https://index.docker.io/v1/)\n"
            '  echo \'{"ServerURL":"x","Username":"<token>","Secret":"refresh"}\';;\n'
            "broken.example) echo my-secret; exit 1;;\n"
            'strange.example) echo \'{"Username":"my-secret"}\';;\n'
            "garbled.example) echo my-secret;;\n"
            "*) echo credentials not found in native keychain; exit 1;;\n"
            "esac\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return program

    def find(
        self, tmp_path: Path, document: object, image: RegistryReference
    ) -> Credentials | None:
        own = write(tmp_path / "own.json", document)
        return find(image, Access(authfile=own))

    @pytest.mark.usefixtures("helper")
    @pytest.mark.parametrize(
        ("document", "image", "expected"),
        [
            ({"credsStore": "test"}, APP, Credentials("me", "pw")),
            ({"credHelpers": {"h.example:5000": "test"}}, APP, Credentials("me", "pw")),
            ({"credHelpers": {"docker.io": "test"}}, HUB, Credentials("<token>", "", "refresh")),
            ({"credHelpers": {"other.example": "test"}}, APP, None),
            (
                {
                    "credHelpers": {"h.example:5000": "test"},
                    "credsStore": "none",
                    "auths": {"h.example:5000": auth("file")},
                },
                APP,
                Credentials("me", "pw"),
            ),
            (
                {"credsStore": "test", "auths": {"h.example:5000": auth("file")}},
                APP,
                Credentials("file", "pw"),
            ),
            (
                {"credsStore": "test", "auths": {"h.example:5000": {}}},
                APP,
                Credentials("me", "pw"),
            ),
            ({"credsStore": "test"}, RegistryReference("unknown.example", "x", "v"), None),
        ],
    )
    def test_logins_asks_credential_helper(
        self, tmp_path: Path, document: object, image: RegistryReference, expected: object
    ) -> None:
        assert self.find(tmp_path, document, image) == expected

    def test_logins_use_helper_answer_for_some_time_and_on_where_it_gives_no_other(
        self, helper: Path, tmp_path: Path
    ) -> None:
        passed = 0.0
        own = write(tmp_path / "own.json", {"credHelpers": {APP.host: "test"}})
        logins = Logins(lambda: passed)

        def find() -> Credentials | None:
            return logins.find(APP.host, APP.repository, Access(authfile=own))

        assert find() == Credentials("me", "pw")
        helper.write_text("""#!/bin/sh\necho '{"Username":"me","Secret":"renewed"}'\n""")
        passed = 299.0
        assert find() == Credentials("me", "pw")
        passed = 301.0
        assert find() == Credentials("me", "renewed")
        helper.write_text("#!/bin/sh\nexit 1\n")
        passed = 602.0
        assert find() == Credentials("me", "renewed")

    @pytest.mark.usefixtures("helper")
    @pytest.mark.parametrize(
        ("host", "words"),
        [("broken.example", "failed with exit code 1"), ("strange.example", "without a user name")],
    )
    def test_credential_helper_failure_shows_no_secret(
        self, tmp_path: Path, host: str, words: str
    ) -> None:
        with pytest.raises(RemoteError, match=words) as caught:
            self.find(tmp_path, {"credHelpers": {host: "test"}}, RegistryReference(host, "x", "v"))
        assert "my-secret" not in str(caught.value)
        assert caught.value.hint == f"see what it says: echo {host} | docker-credential-test get"

    def test_credential_helper_that_is_not_installed_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match="docker-credential-absent is not installed"):
            self.find(tmp_path, {"credHelpers": {APP.host: "absent"}}, APP)

    @pytest.mark.usefixtures("helper")
    @pytest.mark.parametrize(
        ("host", "store", "words"),
        [
            ("broken.example", "test", "docker-credential-test failed with exit code 1"),
            ("strange.example", "test", "docker-credential-test answered without a user name"),
            ("garbled.example", "test", "the answer of docker-credential-test is not"),
            ("h.example", "absent", "docker-credential-absent is not installed"),
            ("h.example", "locked", "docker-credential-locked cannot be run: permission denied"),
        ],
    )
    def test_credential_store_failure_is_a_warning_without_secret(
        self,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        host: str,
        store: str,
        words: str,
    ) -> None:
        (tmp_path / "bin" / "docker-credential-locked").write_text("#!/bin/sh\n")
        found = self.find(tmp_path, {"credsStore": store}, RegistryReference(host, "x", "v"))
        assert found is None
        assert words in caplog.text
        assert "my-secret" not in caplog.text

    @pytest.fixture
    def waiting(self, helper: Path, tmp_path: Path) -> Waiting:
        """A helper that says when it was asked, and answers when there is something to say."""
        waiting = Waiting(tmp_path)
        helper.write_text(
            "#!/bin/sh\n"
            "read server\n"
            f'[ "$server" = quick.example ] || [ -e {waiting.ready} ] ||'
            f" {{ echo > {waiting.asked}; read go < {waiting.go}; }}\n"
            """echo '{"Username":"me","Secret":"pw"}'\n"""
        )
        return waiting

    @pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
    def test_credential_helper_is_given_up_when_the_call_is_cancelled_and_asked_anew(
        self, tmp_path: Path, waiting: Waiting, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        own = write(
            tmp_path / "own.json", {kind: {APP.host: "test"} if kind == "credHelpers" else "test"}
        )
        access, logins, caller = Access(authfile=own), Logins(), Caller()

        def leave() -> None:
            waiting.asked.read_bytes()
            caller.leave()

        leaving = threading.Thread(target=leave)
        leaving.start()
        with ends(), within(math.inf, caller), pytest.raises(RemoteError, match="not answer"):
            logins.find(APP.host, APP.repository, access)
        leaving.join()
        waiting.ready.touch()
        assert logins.find(APP.host, APP.repository, access) == Credentials("me", "pw")
        assert not caplog.messages

    def test_credential_helper_that_is_waited_for_keeps_no_other_registry_waiting(
        self, tmp_path: Path, waiting: Waiting
    ) -> None:
        own = write(tmp_path / "own.json", {"credsStore": "test"})
        access, logins = Access(authfile=own), Logins()
        found = list[Credentials | None]()
        other = threading.Thread(
            target=lambda: found.append(logins.find(APP.host, APP.repository, access))
        )
        other.start()
        waiting.asked.read_bytes()
        assert logins.find("quick.example", "app", access) == Credentials("me", "pw")
        assert other.is_alive()
        waiting.go.write_text("go\n")
        other.join()
        assert found == [Credentials("me", "pw")]

    def test_caller_who_goes_does_not_wait_until_another_has_asked_the_helper(
        self, tmp_path: Path, waiting: Waiting
    ) -> None:
        own = write(tmp_path / "own.json", {"credsStore": "test"})
        access, logins, caller = Access(authfile=own), Logins(), Caller()
        other = threading.Thread(target=logins.find, args=(APP.host, APP.repository, access))
        other.start()
        waiting.asked.read_bytes()
        leaving = threading.Timer(0.01, caller.leave)
        leaving.start()
        with within(math.inf, caller), pytest.raises(RemoteError, match="not answer"):
            logins.find(APP.host, APP.repository, access)
        assert other.is_alive()
        waiting.go.write_text("go\n")
        other.join()
        leaving.join()

    @pytest.mark.usefixtures("helper")
    def test_credentials_say_where_they_are_from(self, tmp_path: Path) -> None:
        own = tmp_path / "own.json"
        for document, origin in [
            ({"auths": {APP.host: auth("file")}}, f"'{own}'"),
            ({"auths": {APP.host: {"identitytoken": "t"}}}, f"'{own}'"),
            ({"credsStore": "test"}, "docker-credential-test"),
        ]:
            found = self.find(tmp_path, document, APP)
            assert found is not None
            assert found.origin == origin
        found = self.find(tmp_path, {"credHelpers": {"docker.io": "test"}}, HUB)
        assert found is not None
        assert found.origin == "docker-credential-test"


class Waiting:
    """What a helper and a test say to one another."""

    def __init__(self, folder: Path) -> None:
        self.asked, self.go, self.ready = folder / "asked", folder / "go", folder / "ready"
        os.mkfifo(self.asked)
        os.mkfifo(self.go)


class TestWritten:
    def test_parse_credentials_splits_user_and_password_at_first_colon(self) -> None:
        assert parse_credentials("me:a:b") == Credentials("me", "a:b")
        assert parse_credentials("me:") == Credentials("me", "")

    @pytest.mark.parametrize("text", ["", "secret", ":secret"])
    def test_parse_credentials_refuses_malformed_text_without_quoting_it(self, text: str) -> None:
        with pytest.raises(InputError, match="'user:password'") as caught:
            parse_credentials(text)
        assert "secret" not in str(caught.value)


def test_registry_is_read_by_a_user_without_a_home(
    image_name: RegistryReference, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, under a user ID that no passwd knows, as OpenShift gives them."""

    def nobody(_uid: int) -> NoReturn:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    one = image(b"layer")
    registry.manifests[image_name.repository, "v1"] = (one.top.media_type, one.top.raw)
    check_source(image_name)
    with open_source(image_name, Access(tls_verify=False)) as source:
        assert source.manifest().digest == one.top.digest
