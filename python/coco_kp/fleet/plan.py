"""From images to the lines of a plan: digests in place of tags, and an order that saves work.

Images that share layers stand together, and name those before them that have such a layer, so that
each layer is encrypted once, in whichever repository it is needed.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, NotThereError
from coco_kp.fleet.destinations import Destinations
from coco_kp.fleet.halt import Halt
from coco_kp.fleet.lines import MAX_TEXTS, Action, Options, PlanLine, check_plan_line
from coco_kp.image.tree import images, read_tree
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference, parse_image_reference
from coco_kp.redact import shown
from coco_kp.transport import Access, access_beside, open_source
from coco_kp.values import dataclass, field, replace

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session

_PLACE: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """``docker://host/{repository}:{tag}``: where an image goes, by what it is called now."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what would lead images nowhere, or wherever their own registry says."""
        unknown = set(_PLACE.findall(self.text)) - {"repository", "tag"}
        if unknown or _PLACE.search(self.text.removeprefix("docker://").partition("/")[0]):
            what = f"has {{{min(unknown)}}}" if unknown else "names no registry"
            raise InputError(
                f"the template {shown(self.text)} {what}",
                "write docker://new.example/{repository}:{tag}",
            )
        self.of(RegistryReference("host.example", "repository", "tag"))

    def of(self, image: RegistryReference) -> RegistryReference:
        """Return where an image goes. Raises ``InputError``."""
        if image.tag is None and "{tag}" in self.text:
            raise InputError(f"{image} has no tag for the template {shown(self.text)}")
        values = {"repository": image.repository, "tag": image.tag or ""}
        named = parse_image_reference(_PLACE.sub(lambda found: values[found[1]], self.text))
        if not isinstance(named, RegistryReference) or named.tag is None:
            raise InputError(
                f"the template {shown(self.text)} names no tag in a registry",
                "write docker://new.example/{repository}:{tag}",
            )
        return named


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image, what its name points to now, and its layers where they matter."""

    source: RegistryReference
    digest: Digest
    layers: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to become of all images of a plan."""

    action: Action
    to: Template | None = None
    keys: tuple[str, ...] = ()
    old_keys: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)


def find_images(
    names: Iterable[RegistryReference],
    access: Access,
    session: Session,
    *,
    layers: bool,
    jobs: int,
    halt: Halt,
    gone: Callable[[RegistryReference], None],
) -> Iterator[FoundImage]:
    """Yield what each name points to, in the order of the names, ``jobs`` asked for at once.

    With ``layers`` manifests are read, else asked for their digests alone. ``gone`` is told of a
    name that is no longer there. What ends this early asks for a ``halt``, by which ``session`` is
    to sleep. Raises ``RemoteError``, and ``InputError`` for no manifest at all.
    """

    def look(name: RegistryReference) -> FoundImage | None:
        try:
            return _found(name, access, session, layers=layers)
        except NotThereError:
            gone(name)
            return None

    waiting = deque[Future[FoundImage | None]]()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for name in names:
                waiting.append(pool.submit(look, name))
                if len(waiting) > 2 * jobs and (image := waiting.popleft().result()):
                    yield image
            while waiting:
                if image := waiting.popleft().result():
                    yield image
        except BaseException:
            halt.ask()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def with_pinned_base(
    options: Options, found: Sequence[FoundImage], access: Access, session: Session
) -> Options:
    """Return options whose base is what its name points to now, for all images.

    ``access`` is that of the images. Raises ``RemoteError``, ``InputError``.
    """
    if options.skip_base is None or not found:
        return options
    base = parse_image_reference(options.skip_base)
    if not isinstance(base, RegistryReference):  # which no line of a plan may have
        return options
    its_access = access_beside(base, *((image.source, access) for image in found))
    with open_source(base, its_access, session) as source:
        pinned = replace(base, tag=None, digest=source.digest())
    return replace(options, skip_base=str(pinned))


def plan_lines(found: Iterable[FoundImage], wanted: Wanted) -> list[PlanLine]:
    """Return the lines of a plan, in the order in which they are best done.

    Raises ``InputError`` for two images that would get one name, or one that would lose its own.
    """
    ordered = list(found)
    if wanted.action == "encrypt":
        ordered = [image for group in _groups(ordered) for image in group]
    lines = [_line(image, wanted) for image in ordered]
    destinations = Destinations()
    for line in lines:
        destinations.add(line)
    destinations.check()
    for line in lines:
        check_plan_line(line, f"the line of {line.source}")
    return _sharing(ordered, lines) if wanted.action == "encrypt" else lines


def _found(
    name: RegistryReference, access: Access, session: Session, *, layers: bool
) -> FoundImage:
    with open_source(name, access, session) as source:
        if not layers:
            return FoundImage(name, source.digest())
        try:
            tree = read_tree(source, configs=False)
        except InputError:  # whoever runs the plan is told what is wrong with it
            return FoundImage(name, source.digest())
    digests = (layer.digest for image in images(tree) for layer in image.manifest.layers)
    return FoundImage(name, tree.manifest.digest, tuple(dict.fromkeys(digests)))


def _line(image: FoundImage, wanted: Wanted) -> PlanLine:
    return PlanLine(
        wanted.action,
        image.source,
        image.digest,
        wanted.to.of(image.source) if wanted.to else None,
        wanted.keys,
        wanted.old_keys,
        options=wanted.options,
    )


def _groups(found: Sequence[FoundImage]) -> list[list[FoundImage]]:
    """Return images that share layers, directly or through others, in groups; the first first."""
    parent = list(range(len(found)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    owner: dict[Digest, int] = {}
    for number, image in enumerate(found):
        for layer in image.layers:
            first, second = root(owner.setdefault(layer, number)), root(number)
            parent[max(first, second)] = min(first, second)
    groups: dict[int, list[FoundImage]] = {}
    for number, image in enumerate(found):
        groups.setdefault(root(number), []).append(image)
    return list(groups.values())


def _sharing(found: Sequence[FoundImage], lines: Sequence[PlanLine]) -> list[PlanLine]:
    """Return the lines, each of which names those before it that have its layers first."""
    first: dict[Digest, RegistryReference] = {}
    sharing = []
    for image, line in zip(found, lines, strict=True):
        assert line.destination is not None  # noqa: S101 (it is encrypted)
        others = dict.fromkeys(first.setdefault(layer, line.destination) for layer in image.layers)
        others.pop(line.destination, None)
        sharing.append(replace(line, reuse=tuple(others)[:MAX_TEXTS]))
    return sharing
