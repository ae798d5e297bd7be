"""What a registry has: the tags of a repository, and the catalogue of repositories.

Tags as the OCI distribution-spec lists them (end-8a, end-8b), page by page; the catalogue is not in
that specification, but in distribution's own (``docs/spec/api.md``), and many registries have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote, urljoin

from coco_kp.errors import InputError, RemoteError
from coco_kp.http import Response, display_url, same_origin
from coco_kp.http.url import parse_target
from coco_kp.model.encoding import parse_json_object
from coco_kp.model.reference import is_repository, is_tag
from coco_kp.redact import shown
from coco_kp.transport.registry.client import RegistryClient
from coco_kp.transport.registry.repository import Repository

_PAGE: Final = 1000
"""Names of a page that are asked for; registries refuse more, or give fewer."""

_MAX_PAGE: Final = 4 * 1024 * 1024
"""Bytes of a page; what ``parse_json_object`` takes. Some registries give all names in one."""

_MAX_PAGES: Final = 10_000

_MAX_NAMES: Final = 1_000_000
"""Names of one listing; a registry that goes on for ever ends here."""

_NO_CATALOGUE: Final = frozenset({404, 405, 501})

_PARAMETER: Final = r"\s*;\s*[^\s\"<>,;=]+\s*(?:=\s*(?:\"[^\"]*\"|[^\s\"<>,;]+))?"
_LINK: Final = re.compile(rf"<([^<>]*)>((?:{_PARAMETER})*)", re.ASCII)
_REL: Final = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\"<>,;]+))", re.ASCII | re.IGNORECASE)


def tags(repository: Repository) -> Iterator[str]:
    """Yield the tags of a repository as the registry orders them, each page when it is needed.

    Raises ``RemoteError`` where they cannot be listed, or the registry lists an invalid tag.
    """

    def page(url: str) -> Response:
        response = repository.request("GET", url, load=_MAX_PAGE)
        if response.status != 200:
            raise repository.refused(
                response, f"the tags of docker://{repository.host}/{repository.name}"
            )
        return response

    return _names(page, repository.url("tags/list"), "tags", is_tag, ordered=True)


def repositories(client: RegistryClient) -> Iterator[str]:
    """Yield the repositories that a registry has and shows, each page when it is needed.

    Raises ``RemoteError`` where it has no catalogue, or lists an invalid repository name.
    """

    def page(url: str) -> Response:
        response = client.request("GET", url, scopes=("registry:catalog:*",), load=_MAX_PAGE)
        if response.status != 200:
            error = client.refused(response, f"{client.host} lists no repositories")
            if response.status in _NO_CATALOGUE:
                error.hint = "not every registry has a catalogue: name the repositories"
            raise error
        return response

    url = f"{client.base()}/v2/_catalog"
    return _names(page, url, "repositories", is_repository, ordered=False)


def _names(
    page: Callable[[str], Response],
    url: str,
    member: str,
    is_name: Callable[[str], bool],
    *,
    ordered: bool,
) -> Iterator[str]:
    """Yield all names; ``ordered``: what comes behind a name can be asked for (distribution-spec).

    go-containerregistry's catalogue has no order: each page is some of the names.
    """
    count = 0
    first: list[str] = []
    before: list[str] = []
    asked = f"{url}?n={_PAGE}"
    for _ in range(_MAX_PAGES):
        response = page(asked)
        following = _next_page(response, asked)
        names = _read(response, member)
        if before and names and (not ordered or set(before) & set(names)):
            raise RemoteError(
                f"the list of {member} at {display_url(url)} is cut off, and does not go on"
            )
        if before and set(first) & set(names):
            return  # behind its last name, a registry began anew
        first = first or names
        for name in names:
            if not is_name(name):
                raise RemoteError(
                    f"{response.request}: lists an invalid name among its {member}: "
                    f"{shown(response.quote(name))}"
                )
            yield name
        count += len(names)
        # As many as were asked for, and not a word on others: there may be some nonetheless.
        before = names if following is None and len(names) == _PAGE else []
        if before:
            following = f"{url}?n={_PAGE}&last={quote(names[-1])}"
        if following is None:
            return
        if count > _MAX_NAMES:
            break
        asked = following
    raise RemoteError(f"the list of {member} at {display_url(url)} does not end")


def _read(response: Response, member: str) -> list[str]:
    what = f"the answer of {response.request}"
    try:
        names = parse_json_object(response.document(_MAX_PAGE), what).get(member)
    except InputError as error:
        raise RemoteError(error.message) from None
    if names is None:  # of a repository whose last tag was deleted
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RemoteError(f"{what} has no list of {member}")
    return names


def _next_page(response: Response, asked: str) -> str | None:
    """Return where the next page is (RFC 8288): where this one was asked for, or nowhere."""
    for link in _LINK.finditer(response.headers.get("Link", "")):
        rel = _REL.search(link[2])
        if rel is None or "next" not in (rel[1] or rel[2] or "").lower().split():
            continue
        try:
            url = parse_target(urljoin(response.url, link[1])).url
        except (InputError, ValueError):
            raise RemoteError(f"{response.request}: names no usable next page") from None
        if not same_origin(url, asked):
            raise RemoteError(f"{response.request}: its next page is at {display_url(url)}")
        if url == asked:
            raise RemoteError(f"{response.request}: is its own next page")
        return url
    return None
