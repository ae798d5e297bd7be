"""``registries.conf``: which files, which registry, mirrors, insecure, blocked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coco_kp.errors import InputError, RefusedError, RemoteError
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, Credentials
from coco_kp.transport.registry.configuration import Configuration
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.registry import Registry, serve
from tests.support.access import PLAIN, REPOSITORY
from tests.support.stored import check, image, store

ONE = image(b"layer one")
MIRROR = '[[registry]]\nlocation = "h"\n[[registry.mirror]]\n'
APP = RegistryReference("h.example:5000", "team/app", "v1")


@pytest.fixture
def own(home: Path) -> Path:
    """The user's registries.conf, in a folder that is there."""
    folder = home / ".config" / "containers"
    folder.mkdir(parents=True)
    return folder / "registries.conf"


def verified() -> bool | None:
    """Return whether the registry's certificate is verified when an image is written."""
    return Configuration().place_to_write(APP, Access()).access.tls_verify


def names(reference: RegistryReference = APP) -> list[str]:
    places = Configuration().places_to_read(reference, Access())
    return [str(place.image).removeprefix("docker://") for place in places]


def insecure(host: str) -> str:
    return f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'


class TestFiles:
    @pytest.mark.parametrize("name", ["registries.conf", "registries.conf.d/a.conf"])
    def test_registries_conf_of_user_hides_files_of_system(
        self, system: Path, own: Path, name: str
    ) -> None:
        """As the library of skopeo and podman has it (sysregistriesv2)."""
        (system / name).parent.mkdir(exist_ok=True)
        (system / name).write_text(insecure(APP.host))
        assert verified() is False
        own.write_text("")
        assert verified() is True

    def test_registries_conf_from_environment_hides_both(
        self, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own.write_text(insecure(APP.host))
        (tmp_path / "named.conf").write_text("")
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "named.conf"))
        assert verified() is True
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "absent.conf"))
        with pytest.raises(InputError, match=r"absent\.conf"):
            verified()

    def test_registries_conf_d_goes_before_in_order(self, system: Path, own: Path) -> None:
        (system / "registries.conf").write_text(insecure(APP.host))
        for folder, value in ((system, "true"), (own.parent, "false")):
            (folder / "registries.conf.d").mkdir()
            text = f'[[registry]]\nlocation = "{APP.host}"\ninsecure = {value}\n'
            (folder / "registries.conf.d" / "a.conf").write_text(text)
            (folder / "registries.conf.d" / "ignored.txt").write_text("not TOML")
        assert verified() is True

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[[registry", "is not TOML"),
            ('registry = "x"', "is not a list of tables"),
            ("[[registry]]\ninsecure = true", "has no location"),
            ('[[registry]]\nlocation = "https://h"', "'location' in .* is not a host"),
            ('[[registry]]\nlocation = "h"\ninsecure = "no"', "neither true nor false"),
            (MIRROR, "a mirror of 'h' in"),
            (f'{MIRROR}location = "m"\npull-from-mirror = "x"', "pull-from-mirror is not one of"),
            ('[[registry]]\nlocation = "h"\npull-from-mirror = "all"', "outside of a mirror"),
            (f'{insecure("h")}[[registry]]\nlocation = "h"', "differs in 'insecure'"),
            ('[[registry]]\nprefix = "*.h/x"', "more than a wildcard and a domain"),
            (f"{insecure('h')}[registries.insecure]\nregistries = []", "is of version 1"),
        ],
    )
    def test_malformed_registries_conf_is_named(self, own: Path, text: str, words: str) -> None:
        own.write_text(text)
        with pytest.raises(InputError, match=words) as caught:
            names()
        assert str(own) in caught.value.message


class TestRules:
    def test_option_goes_before_registries_conf(self, own: Path) -> None:
        own.write_text(insecure(APP.host))
        for chosen in (True, False):
            place = Configuration().place_to_write(APP, Access(tls_verify=chosen))
            assert place.access.tls_verify is chosen

    @pytest.mark.parametrize("place", [Configuration.places_to_read, Configuration.place_to_write])
    @pytest.mark.parametrize(
        "text",
        [
            '[[registry]]\nlocation = "h.example:5000"\nblocked = true',
            '[[registry]]\nprefix = "*.example"\nblocked = true',
            '[registries.block]\nregistries = ["h.example:5000"]',
        ],
    )
    def test_blocked_registry_is_refused(
        self,
        own: Path,
        text: str,
        place: Callable[[Configuration, RegistryReference, Access], object],
    ) -> None:
        own.write_text(text)
        with pytest.raises(RefusedError, match=r"is blocked: '.*registries\.conf'"):
            place(Configuration(), APP, PLAIN)

    def test_insecure_registry_of_version_1_is_known(self, own: Path) -> None:
        text = '[registries.insecure]\nregistries = ["h.example:5000"]'
        own.write_text(text)
        assert Configuration().places_to_read(APP, Access())[0].access.tls_verify is False

    @pytest.mark.parametrize(
        ("prefix", "location", "expected"),
        [
            ("h.example:5000", "m.example", "m.example/team/app:v1"),
            ("h.example:5000/team", "m.example/x/y", "m.example/x/y/app:v1"),
            ("h.example:5000/team/app", "m.example/z", "m.example/z:v1"),
            ("h.example:5000/te", "m.example", "h.example:5000/team/app:v1"),
            ("*.example", "", "h.example:5000/team/app:v1"),
            ("*.example", "m.example", "m.example:5000/team/app:v1"),
            ("*.other", "m.example", "h.example:5000/team/app:v1"),
            ("*.h.example", "m.example", "h.example:5000/team/app:v1"),
        ],
    )
    def test_image_is_read_where_location_says(
        self, own: Path, prefix: str, location: str, expected: str
    ) -> None:
        where = f'location = "{location}"\n' if location else ""
        own.write_text(f'[[registry]]\nprefix = "{prefix}"\n{where}')
        assert names() == [expected]
        written = Configuration().place_to_write(APP, Access()).image
        assert written == APP, "what is written is not moved"

    def test_longest_prefix_decides(self, own: Path) -> None:
        own.write_text(
            '[[registry]]\nprefix = "h.example:5000/team"\nlocation = "two.example"\n'
            '[[registry]]\nprefix = "h.example:5000"\nlocation = "one.example"\n'
        )
        assert names() == ["two.example/app:v1"]
        assert names(replace(APP, repository="x/y")) == ["one.example/x/y:v1"]

    def test_mirrors_come_first_where_they_are_for_this_kind_of_name(self, own: Path) -> None:
        own.write_text(
            '[[registry]]\nlocation = "h.example:5000"\n'
            '[[registry.mirror]]\nlocation = "all.example"\ninsecure = true\n'
            '[[registry.mirror]]\nlocation = "tag.example"\npull-from-mirror = "tag-only"\n'
            '[[registry.mirror]]\nlocation = "digest.example"\npull-from-mirror = "digest-only"\n'
        )
        for name, kind in (
            (APP, "tag"),
            (replace(APP, tag=None, digest=Digest.of(b"x")), "digest"),
        ):
            places = Configuration().places_to_read(name, Access())
            assert [(place.image.host, place.access.tls_verify) for place in places] == [
                *(("all.example", False), (f"{kind}.example", True), ("h.example:5000", True))
            ]

    def test_mirror_by_digest_only_serves_no_tags(self, own: Path) -> None:
        own.write_text(
            '[[registry]]\nlocation = "h.example:5000"\nmirror-by-digest-only = true\n'
            '[[registry.mirror]]\nlocation = "m.example"\n'
        )
        assert names() == ["h.example:5000/team/app:v1"]

    def test_credentials_of_option_go_to_no_mirror(self, own: Path) -> None:
        own.write_text(
            '[[registry]]\nlocation = "h.example:5000"\n[[registry.mirror]]\nlocation = "m.x"\n'
        )
        mirror, itself = Configuration().places_to_read(
            APP, Access(Credentials("user", "password"))
        )
        assert mirror.access.credentials is None
        assert itself.access.credentials is not None


class TestMirrors:
    def test_image_is_read_from_mirror_and_written_to_registry(
        self, registry: Registry, host: str, own: Path
    ) -> None:
        mirror = Registry()
        with serve(mirror) as its_host:
            own.write_text(
                insecure(host)
                + f'[[registry.mirror]]\nlocation = "{its_host}/cache"\ninsecure = true\n'
            )
            name = RegistryReference(host, REPOSITORY, "v1")
            with RegistrySink(RegistryReference(its_host, f"cache/{REPOSITORY}", "v1"), PLAIN) as s:
                store(s, ONE)
            mirror.seen.clear()
            with RegistrySource(name, Access()) as source:
                check(source, ONE)
            assert not registry.seen
            mirror.seen.clear()
            with RegistrySink(name, Access()) as sink:
                store(sink, ONE)
            assert not mirror.seen
            assert (REPOSITORY, "v1") in registry.manifests

    def test_image_that_mirrors_lack_is_read_from_registry(
        self, host: str, own: Path, session: Session
    ) -> None:
        with serve(Registry()) as empty:
            mirrors = [f'[[registry.mirror]]\nlocation = "{m}"\n' for m in (empty, "127.0.0.1:1")]
            own.write_text(insecure(host) + "insecure = true\n".join(mirrors))
            name = RegistryReference(host, REPOSITORY, "v1")
            with RegistrySink(name, Access()) as sink:
                store(sink, ONE)
            with RegistrySource(name, Access(), session) as source:
                check(source, ONE)
            missing = replace(name, tag="v2")
            with (
                RegistrySource(missing, Access(), session) as source,
                pytest.raises(RemoteError, match="404 .*; mirrors failed, too: .*404") as caught,
            ):
                source.manifest()
            assert "127.0.0.1:1/v2/: connection refused" in caught.value.message
