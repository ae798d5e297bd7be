"""``registries.conf``: registries that are insecure, blocked, elsewhere, or have mirrors.

Read as skopeo reads it (containers-registries.conf(5), both of its versions): the user's file or
else the system's, then the files in the user's ``registries.conf.d``, before that in the system's
unless the user has a file. Later files go before earlier ones, in one file the first entry of a
prefix counts. What skopeo refuses is refused. Short-name aliases play no part: ``docker://app`` is
Docker Hub's, as for skopeo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, RefusedError
from coco_kp.files import home, is_there, read_small
from coco_kp.model.reference import RegistryReference, parse_image_reference
from coco_kp.transport.access import Access
from coco_kp.values import dataclass, replace

_SYSTEM: Final = Path("/etc/containers")
_MAX_FILE: Final = 1024 * 1024
_RULE: Final = "pull-from-mirror"
_WHEN: Final = ("all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is read or written, and how that registry is reached."""

    image: RegistryReference
    access: Access


@dataclass(frozen=True, slots=True)
class _Endpoint:
    location: str
    insecure: bool
    when: str = "all"


@dataclass(frozen=True, slots=True)
class _Registry:
    """One ``[[registry]]``; ``file`` is where it stands."""

    prefix: str
    endpoint: _Endpoint
    blocked: bool
    mirrors: tuple[_Endpoint, ...]
    by_digest: bool
    file: Path


class Configuration:
    """What the files say, read once. Raises ``InputError`` for an invalid file."""

    def __init__(self) -> None:
        self._known = _registries()

    def places_to_read(self, image: RegistryReference, access: Access) -> list[Place]:
        """Return where an image may be read, in order: mirrors, then the registry itself.

        Raises ``RefusedError`` where it is blocked.
        """
        registry = self._registry_of(_name(image))
        if registry is None:
            return [Place(image, _secured(access, insecure=False))]
        when = "digest-only" if image.digest else "tag-only"
        mirrors = [
            mirror
            for mirror in registry.mirrors
            if mirror.when in ("all", when) and (image.digest or not registry.by_digest)
        ]
        places = []
        for endpoint in (*mirrors, registry.endpoint):
            there = _moved(image, registry, endpoint)
            try:
                self._registry_of(_name(there))
            except RefusedError:
                if endpoint is registry.endpoint:
                    raise
                continue  # a mirror that is blocked itself
            # What was given for the registry itself is told to no mirror.
            own = access if there.host == image.host else replace(access, credentials=None)
            places.append(Place(there, _secured(own, insecure=endpoint.insecure)))
        return places

    def place_to_write(self, image: RegistryReference, access: Access) -> Place:
        """Return where an image is written: never a mirror, nor moved. Raises as above."""
        return Place(image, self.access_to(_name(image), access))

    def access_to(self, name: str, access: Access) -> Access:
        """Return how an image's registry is reached, or one itself by its host. Raises as above."""
        registry = self._registry_of(name)
        return _secured(access, insecure=registry is not None and registry.endpoint.insecure)

    def _registry_of(self, name: str) -> _Registry | None:
        matching = [r for r in self._known if _matched(name, r.prefix)]
        registry = max(matching, key=lambda r: len(r.prefix), default=None)
        if registry is not None and registry.blocked:
            raise RefusedError(
                f"docker://{name} is blocked: "
                f"'{registry.file}' has 'blocked = true' for '{registry.prefix}'"
            )
        return registry


def _secured(access: Access, *, insecure: bool) -> Access:
    """Decide what no option decided."""
    return access if access.tls_verify is not None else replace(access, tls_verify=not insecure)


def _name(image: RegistryReference) -> str:
    return str(image).removeprefix("docker://")


def _matched(name: str, prefix: str) -> int:
    """Count the characters of ``name`` that a prefix stands for; 0 where it does not match."""
    start = 0
    if prefix.startswith("*."):
        prefix = prefix[1:]
        start = name.partition("/")[0].find(prefix)
        if start < 1:
            return 0
    end = start + len(prefix)
    if not name.startswith(prefix, start) or name[end : end + 1] not in ("", "/", ":", "@"):
        return 0
    return end


def _moved(image: RegistryReference, registry: _Registry, endpoint: _Endpoint) -> RegistryReference:
    if not endpoint.location:  # of a prefix with a wildcard
        return image
    name = _name(image)
    moved = parse_image_reference(
        f"docker://{endpoint.location}{name[_matched(name, registry.prefix) :]}"
    )
    assert isinstance(moved, RegistryReference)  # noqa: S101 (as written just now)
    return moved


def _registries() -> list[_Registry]:
    found: dict[str, _Registry] = {}
    for file, main in _files():
        there = list(_read(file, main=main))
        _check_conflicts(there, file)
        found |= {registry.prefix: registry for registry in reversed(there)}
    return list(found.values())


def _check_conflicts(registries: Sequence[_Registry], file: Path) -> None:
    """Refuse what says of one location both that it is insecure, or blocked, and that it is not."""
    seen: dict[str, tuple[bool, bool]] = {}
    for registry in registries:
        location = registry.endpoint.location or registry.prefix
        said = (registry.endpoint.insecure, registry.blocked)
        if seen.setdefault(location, said) != said:
            raise InputError(
                f"'{file}' has '{location}' twice, and differs in 'insecure' or 'blocked'"
            )


def _files() -> Iterator[tuple[Path, bool]]:
    """Yield the files and whether each is a main file, in rising order of precedence."""
    own = home() / ".config" / "containers"
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    folders = [_SYSTEM, own]
    if named:
        yield Path(named), True
    elif is_there(own / "registries.conf"):
        yield own / "registries.conf", True
        folders = [own]
    elif is_there(_SYSTEM / "registries.conf"):
        yield _SYSTEM / "registries.conf", True
    for folder in folders:
        for file in sorted((folder / "registries.conf.d").glob("*.conf")):
            yield file, False


def _read(file: Path, *, main: bool) -> Iterator[_Registry]:
    import tomllib  # noqa: PLC0415 (most users have no such file)

    try:
        document = tomllib.loads(read_small(file, _MAX_FILE).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' is not TOML: {error}") from None
    for table in _tables(document, "registry", file):
        location = _text(table, "location", file)
        prefix = _text(table, "prefix", file) or location
        if not prefix or not (location or prefix.startswith("*.")):
            raise InputError(f"a registry in '{file}' has no location")
        if prefix.startswith("*.") and re.search("[/@:]", prefix):
            raise InputError(f"'{prefix}' in '{file}' is more than a wildcard and a domain")
        by_digest = _flag(table, "mirror-by-digest-only", file)
        mirrors = tuple(
            _Endpoint(
                _text(mirror, "location", file),
                _flag(mirror, "insecure", file),
                _text(mirror, _RULE, file) or "all",
            )
            for mirror in _tables(table, "mirror", file)
        )
        if any(not mirror.location or mirror.when not in _WHEN for mirror in mirrors):
            raise InputError(
                f"a mirror of '{prefix}' in '{file}' has no location, or its pull-from-mirror is "
                f"not one of {', '.join(_WHEN)}"
            )
        ruled = [mirror for mirror in _tables(table, "mirror", file) if _RULE in mirror]
        if _RULE in table or (by_digest and ruled):
            raise InputError(
                f"'{prefix}' in '{file}' has {_RULE} beside mirror-by-digest-only, or outside of "
                "a mirror"
            )
        yield _Registry(
            prefix,
            _Endpoint(location, _flag(table, "insecure", file)),
            _flag(table, "blocked", file),
            mirrors,
            by_digest,
            file,
        )
    if "registries" in document:
        if not main or "registry" in document:
            raise InputError(
                f"'{file}' is of version 1 where it cannot be: beside version 2, or as a drop-in"
            )
        yield from _read_old(document, file)


def _read_old(document: Mapping[str, object], file: Path) -> Iterator[_Registry]:
    """Read version 1: ``[registries.insecure]`` and ``[registries.block]``."""
    old = document.get("registries")
    lists = {}
    for name in ("insecure", "block"):
        table = old.get(name) if isinstance(old, dict) else None
        hosts = table.get("registries") if isinstance(table, dict) else None
        lists[name] = [host for host in hosts or [] if isinstance(host, str)]
    for host in dict.fromkeys((*lists["insecure"], *lists["block"])):
        endpoint = _Endpoint(host, host in lists["insecure"])
        yield _Registry(host, endpoint, host in lists["block"], (), False, file)


def _tables(table: Mapping[str, object], name: str, file: Path) -> list[dict[str, object]]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"'{name}' in '{file}' is not a list of tables: write [[{name}]]")
    return value


def _text(table: Mapping[str, object], name: str, file: Path) -> str:
    value = table.get(name, "")
    if not isinstance(value, str) or "://" in value:
        raise InputError(f"'{name}' in '{file}' is not a host or a name that begins with one")
    return value.rstrip("/")


def _flag(table: Mapping[str, object], name: str, file: Path) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"'{name}' in '{file}' is neither true nor false")
    return value
