"""Tags and the catalogue: page by page, from the registry alone, within bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest

from coco_kp.errors import DeniedError, RefusedError, RemoteError
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, Credentials, list_repositories, list_tags
from coco_kp.transport.registry import listing
from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry, TokenServer, error, serve, serve_tokens
from tests.support.access import PLAIN, REPOSITORY

MANIFEST = ("application/vnd.oci.image.manifest.v1+json", b"{}")
NAMES = [f"v{number}" for number in range(10)]


@pytest.fixture(autouse=True)
def stored(registry: Registry) -> None:
    registry.page = 3
    store(registry, NAMES)
    registry.manifests[REPOSITORY, f"sha256:{0:064x}"] = MANIFEST


def store(registry: Registry, names: Iterable[str]) -> None:
    """Store tags of these names, and as many repositories."""
    for name in names:
        registry.manifests[REPOSITORY, name] = MANIFEST
        registry.manifests[f"team/{name}", "v1"] = MANIFEST


def fill(registry: Registry, count: int) -> list[str]:
    """Store so many tags and repositories, in pages as large as they are asked for, unlinked."""
    names = [f"w{number:04}" for number in range(count)]
    registry.manifests.clear()
    store(registry, names)
    registry.page, registry.links = listing._PAGE, False
    return names


def link(value: str, names: list[str] | None = None) -> Reply:
    return Reply(200, {"Link": value}, json.dumps({"tags": names or ["v1"]}).encode())


def answer(registry: Registry, *replies: Reply) -> None:
    """Let the lists of tags be those, the last again and again."""
    left = list(replies)

    def fault(request: Request) -> Reply | None:
        if not request.path.endswith("/tags/list"):
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    registry.faults = [fault]


class TestTags:
    def test_list_tags_gives_those_of_all_pages(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        assert list(list_tags(image_name, PLAIN)) == NAMES
        pages = registry.requests("GET", "tags/list")
        assert [request.query.get("last") for request in pages] == [None, ["v2"], ["v5"], ["v8"]]

    @pytest.mark.parametrize("pages", [3.3, 2, 1])
    def test_list_tags_asks_on_where_page_is_full_and_names_no_next(
        self, registry: Registry, image_name: RegistryReference, pages: float
    ) -> None:
        names = fill(registry, int(pages * listing._PAGE))
        assert list(list_tags(image_name, PLAIN)) == names

    def test_list_tags_ends_where_registry_begins_anew(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        """As go-containerregistry's registry does behind the last tag."""
        names = fill(registry, 2 * listing._PAGE)
        registry.goes_round = True
        assert list(list_tags(image_name, PLAIN)) == names

    def test_list_tags_refuses_list_that_is_cut_off(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        """go-containerregistry's registry cuts its catalogue so."""
        fill(registry, 2 * listing._PAGE)
        registry.goes_on = False
        with pytest.raises(RemoteError, match="is cut off, and does not go on"):
            list(list_tags(image_name, PLAIN))

    def test_list_tags_takes_all_from_registry_that_knows_no_pages(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        names = fill(registry, listing._PAGE + 1)
        answer(registry, Reply(200, {}, json.dumps({"tags": names}).encode()))
        assert list(list_tags(image_name, PLAIN)) == names

    def test_list_tags_asks_for_a_page_when_it_is_needed(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        assert list(islice(list_tags(image_name, PLAIN), 3)) == NAMES[:3]
        assert len(registry.requests("GET", "tags/list")) == 1

    @pytest.mark.parametrize(
        "value",
        [
            '<{url}>; rel="next"',
            "<{url}>; rel=next",
            '<{url}>; REL="prev NEXT"; title="a, b"',
            '<http://elsewhere.example/>; rel="prev", <{url}>;rel="next"',
            '<http://{host}{url}>; rel="next"',
        ],
    )
    def test_list_tags_reads_link_as_rfc_8288_has_it(
        self, registry: Registry, image_name: RegistryReference, value: str
    ) -> None:
        url = f"/v2/{REPOSITORY}/tags/list?last=v1"
        value = value.format(url=url, host=image_name.host)
        answer(registry, link(value), Reply(200, {}, b'{"tags": ["v2"]}'))
        assert list(list_tags(image_name, PLAIN)) == ["v1", "v2"]

    @pytest.mark.parametrize("value", ["", "<>", '</v2/x>; rel="prev"', "</v2/x>", "next", "<a; b"])
    def test_list_tags_ends_without_next_page(
        self, registry: Registry, image_name: RegistryReference, value: str
    ) -> None:
        answer(registry, link(value))
        assert list(list_tags(image_name, PLAIN)) == ["v1"]

    @pytest.mark.parametrize("where", ["http://127.0.0.1:1/v2/x", "https://{host}/v2/x", "//a/b"])
    def test_list_tags_asks_for_next_page_nowhere_else(
        self, registry: Registry, image_name: RegistryReference, where: str
    ) -> None:
        answer(registry, link(f'<{where.format(host=image_name.host)}>; rel="next"'))
        with pytest.raises(RemoteError, match="its next page is at http"):
            list(list_tags(image_name, PLAIN))

    def test_list_tags_refuses_page_that_is_its_own_next(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        answer(registry, link(f'</v2/{REPOSITORY}/tags/list?n=1000>; rel="next"'))
        with pytest.raises(RemoteError, match="is its own next page"):
            list(list_tags(image_name, PLAIN))

    @pytest.mark.parametrize("bound", ["_MAX_PAGES", "_MAX_NAMES"])
    def test_list_tags_ends_where_registry_does_not(
        self,
        registry: Registry,
        image_name: RegistryReference,
        bound: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(listing, bound, 7)
        pages = [f'</v2/{REPOSITORY}/tags/list?last={number}>; rel="next"' for number in range(20)]
        answer(registry, *map(link, pages))
        with pytest.raises(RemoteError, match="does not end"):
            list(list_tags(image_name, PLAIN))
        assert len(registry.requests("GET", "tags/list")) < 10

    @pytest.mark.parametrize(
        "name", ["", "a/b", "../up", "-x", "a" * 129, "a\u0000", "<b>", "sha256:00", "\u0131"]
    )
    def test_list_tags_refuses_what_is_no_tag(
        self, registry: Registry, image_name: RegistryReference, name: str
    ) -> None:
        answer(registry, Reply(200, {}, json.dumps({"tags": ["v1", name]}).encode()))
        with pytest.raises(RemoteError, match="an invalid name among its tags"):
            list(list_tags(image_name, PLAIN))

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"tags": "v1"}', b'{"tags": [1]}', b'{"tags": {}}', b"\xff"]
    )
    def test_list_tags_refuses_answer_that_is_no_list(
        self, registry: Registry, image_name: RegistryReference, body: bytes
    ) -> None:
        answer(registry, Reply(200, {}, body))
        with pytest.raises(RemoteError, match="the answer of GET http"):
            list(list_tags(image_name, PLAIN))

    def test_list_tags_refuses_page_that_is_too_long(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        answer(registry, Reply(200, {}, json.dumps({"tags": []}).encode().ljust(4 << 20) + b" "))
        with pytest.raises(RemoteError, match="longer than 4194304 bytes"):
            list(list_tags(image_name, PLAIN))

    def test_list_tags_takes_null_for_repository_without_tags(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        answer(registry, Reply(200, {}, b'{"name": "team/app", "tags": null}'))
        assert list(list_tags(image_name, PLAIN)) == []

    def test_list_tags_says_which_repository_there_is_not(self, host: str) -> None:
        name = RegistryReference(host, "team/none", "v1")
        with pytest.raises(DeniedError, match=rf"the tags of docker://{host}/team/none: GET .*404"):
            list(list_tags(name, PLAIN))

    def test_list_tags_shows_token_to_registry(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        registry.tokens = TokenServer(password="secret")
        access = Access(Credentials("user", "secret"), tls_verify=False)
        with serve_tokens(registry.tokens):
            assert list(list_tags(image_name, access)) == NAMES
        assert len(registry.tokens.seen) == 1

    def test_list_tags_asks_no_mirror(self, image_name: RegistryReference, system: Path) -> None:
        mirror = Registry()
        with serve(mirror) as its_host:
            (system / "registries.conf").write_text(
                f'[[registry]]\nlocation = "{image_name.host}"\ninsecure = true\n'
                f'[[registry.mirror]]\nlocation = "{its_host}"\ninsecure = true\n'
            )
            assert list(list_tags(image_name)) == NAMES
        assert not mirror.seen


class TestCatalogue:
    def test_list_repositories_gives_those_of_all_pages(
        self, registry: Registry, host: str
    ) -> None:
        names = sorted({REPOSITORY, *(f"team/{name}" for name in NAMES)})
        assert list(list_repositories(host, PLAIN)) == names
        assert len(registry.requests("GET", "_catalog")) == 4

    def test_list_repositories_refuses_pages_whose_order_nothing_tells(
        self, registry: Registry, host: str
    ) -> None:
        """go-containerregistry's are some of the names, in no order: one may be on none of them."""
        fill(registry, listing._PAGE + 1)
        with pytest.raises(RemoteError, match="is cut off, and does not go on"):
            list(list_repositories(host, PLAIN))

    def test_list_repositories_takes_a_full_page_behind_which_is_nothing(
        self, registry: Registry, host: str
    ) -> None:
        fill(registry, listing._PAGE - 1)
        assert len(list(list_repositories(host, PLAIN))) == listing._PAGE

    def test_list_repositories_asks_for_the_scope_of_the_catalogue(
        self, registry: Registry, host: str
    ) -> None:
        registry.tokens = TokenServer()
        with serve_tokens(registry.tokens):
            assert len(list(list_repositories(host, PLAIN))) == 11
        assert [request.query["scope"] for request in registry.tokens.seen] == [
            ["registry:catalog:*"]
        ]

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_list_repositories_says_where_there_is_no_catalogue(
        self, registry: Registry, host: str, status: int
    ) -> None:
        registry.faults = [
            lambda request: (
                error(status, "UNSUPPORTED", "no") if request.path == "/v2/_catalog" else None
            )
        ]
        with pytest.raises(RemoteError, match="lists no repositories: GET .*UNSUPPORTED") as caught:
            list(list_repositories(host, PLAIN))
        assert "name the repositories" in caught.value.hint

    def test_list_repositories_refuses_what_is_no_repository(
        self, registry: Registry, host: str
    ) -> None:
        registry.manifests["<b>", "v1"] = MANIFEST
        with pytest.raises(RemoteError, match="an invalid name among its repositories"):
            list(list_repositories(host, PLAIN))

    def test_list_repositories_asks_no_blocked_registry(
        self, registry: Registry, host: str, system: Path
    ) -> None:
        (system / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{host}"\nblocked = true\n'
        )
        with pytest.raises(RefusedError, match="is blocked"):
            list(list_repositories(host, PLAIN))
        assert not registry.seen
