"""One line of a plan: look, do what is left to do, and say what came of it.

Each action may be done any number of times, by any number of workers: what is done already shows
(:mod:`.look`), and a name moves only while the source is what was planned.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from coco_kp.errors import (
    CancelledError,
    ChangedError,
    CocoKpError,
    IntegrityError,
    NotThereError,
)
from coco_kp.fleet.checked import CheckedHeads, CheckedLayer
from coco_kp.fleet.halt import Halt
from coco_kp.fleet.keys import LineKeys
from coco_kp.fleet.lines import (
    TIME,
    Did,
    Failure,
    LayerCounts,
    Options,
    Outcome,
    PlanLine,
    ResultLine,
)
from coco_kp.fleet.look import (
    Look,
    OpenedImage,
    check_encrypted,
    look_at_recipients,
    look_to_encrypt,
    look_to_rewrap,
    open_image,
)
from coco_kp.image.base import BaseLayers, base_layers
from coco_kp.image.encrypt import encrypt_taking_over
from coco_kp.image.inspect import inspect_image
from coco_kp.image.plan import (
    EncryptionPlan,
    LayerAction,
    Rules,
    entries_to_read,
    plan_encryption,
)
from coco_kp.image.progress import Progress
from coco_kp.image.results import EncryptionResult
from coco_kp.image.reuse import EarlierLayer
from coco_kp.image.rewrap import Changes, rewrap_image
from coco_kp.image.tree import Node, images, read_tree
from coco_kp.image.verdicts import VerificationReport
from coco_kp.image.verify import VerificationRules, verify_image
from coco_kp.image.work import Work
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import parse_platform
from coco_kp.model.media_type import ZSTD, compression_of
from coco_kp.model.reference import ImageReference, RegistryReference, parse_image_reference
from coco_kp.transport import Access, Source, access_beside, open_source
from coco_kp.values import dataclass, replace

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session

_BUG: Final = 1
_REPEATED: Final = {_BUG, 6, CancelledError.exit_code}
"""Exit codes after which a repeat may help."""


class MovedError(ChangedError):
    """The source is another image than was planned."""

    code = "source-moved"

    def __init__(self, source: RegistryReference) -> None:
        super().__init__(str(source))
        self.hint = "nothing was written: plan again"


@dataclass(frozen=True, slots=True)
class Reach:
    """How registries are reached: those of sources, and those of destinations."""

    session: Session
    source: Access
    destination: Access


@dataclasses.dataclass(slots=True)
class Worker:
    """Does lines of plans; threads may share it.

    ``jobs`` layers of an image are worked on at once. ``notice`` takes what the user should know.
    """

    reach: Reach
    halt: Halt
    jobs: int
    notice: Callable[[str], None]
    _checked: CheckedHeads = dataclasses.field(default_factory=CheckedHeads, repr=False)

    def run(self, line: PlanLine, keys: LineKeys) -> ResultLine:
        """Do what a line says. Raises ``CancelledError`` where that was ended meanwhile."""
        self.halt.check()
        started = time.monotonic()
        work = _LineWork(line, keys, self)
        try:
            done = work.run()
        except CancelledError:
            self.halt.check()
            raise
        except CocoKpError as error:
            done = _Done(_outcome(error), work.did, error=Failure.of(error))
        except Exception as error:  # noqa: BLE001 (a bug with one image is none of the others')
            what = f"unexpected error: {type(error).__name__}"
            done = _Done("failed", work.did, error=Failure(_BUG, what, code="bug"))
        return ResultLine(
            line,
            done.outcome,
            done.did,
            done.result,
            _now(),
            time.monotonic() - started,
            done.recipients,
            done.layers,
            done.findings,
            done.error,
            work.watch.read,
            done.written,
        )

    def remembering(self, layers: Mapping[Digest, EarlierLayer]) -> dict[Digest, EarlierLayer]:
        """Return layers of which each is read once in this process, whoever takes it over."""
        return {
            digest: CheckedLayer(
                layer.source, layer.layer, layer.encryption, layer.options, self._checked
            )
            for digest, layer in layers.items()
        }


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of a line; as in :class:`ResultLine`."""

    outcome: Outcome
    did: Did
    result: Digest | None = None
    recipients: tuple[str, ...] = ()
    layers: LayerCounts | None = None
    findings: tuple[Failure, ...] = ()
    error: Failure | None = None
    written: int = 0


def failed(line: PlanLine, error: CocoKpError) -> ResultLine:
    """Return the result of a line that was not begun."""
    return ResultLine(
        line, _outcome(error), line.action, None, _now(), 0.0, error=Failure.of(error)
    )


def _now() -> str:
    return datetime.now(UTC).strftime(TIME)


def _outcome(error: CocoKpError) -> Outcome:
    if isinstance(error, MovedError):
        return "moved"
    return "failed" if error.exit_code in _REPEATED else "refused"


class _Watch(Progress):
    """Counts bytes, ends the work when that is wanted, and looks again before an image is named."""

    def __init__(
        self, halt: Halt, before_naming: Callable[[], None], notice: Callable[[str], None]
    ) -> None:
        self.read = 0
        self._halt = halt
        self._before_naming = before_naming
        self._notice = notice
        self._lock = threading.Lock()

    def begin(self, name: str, size: int) -> None:  # noqa: ARG002
        self._halt.check()

    def advance(self, name: str, count: int) -> None:  # noqa: ARG002
        with self._lock:
            self.read += count
        self._halt.check()

    def naming(self) -> None:
        self._before_naming()
        self._halt.check()

    def notice(self, text: str) -> None:
        self._notice(text)


class _LineWork:
    """The work on one line. ``did`` is what it came to, as far as that is known."""

    def __init__(self, line: PlanLine, keys: LineKeys, worker: Worker) -> None:
        self.did: Did = line.action
        self.watch = _Watch(worker.halt, self._check_source, self._notice)
        self._line = line
        self._keys = keys
        self._worker = worker
        self._reach = worker.reach
        self._pinned = replace(line.source, tag=None, digest=line.digest)

    def run(self) -> _Done:
        try:
            match self._line.action:
                case "encrypt":
                    return self._encrypt()
                case "rewrap":
                    return self._rewrap()
                case "verify":
                    return self._verify()
                case "inspect":
                    return self._inspect()
        except NotThereError:
            self._check_source()  # what was planned may be gone because the name has moved
            raise

    def _encrypt(self) -> _Done:
        line, keys = self._line, self._keys
        assert line.destination is not None  # noqa: S101 (the line was read so)
        rules = _rules(line.options)
        with ExitStack() as stack:
            source = stack.enter_context(self._source(self._pinned))
            base = self._base(stack)
            plan = plan_encryption(_tree_to_encrypt(source, rules, base), rules, base)
            there = self._there(stack, line.destination)
            work = Work(self.watch, self._worker.jobs, self._reach.source)
            look = look_to_encrypt(plan, there, keys.recipients, work)
            self.did = look.todo
            if there and look.todo == "nothing":
                return _seen("unchanged", "nothing", there)
            if there and look.todo == "rewrap":
                return self._change_recipients(
                    line.destination, None, there, look, self._reach.destination
                )
            earlier = {**self._of_others(stack, plan, look), **look.earlier}
            return self._encrypt_with(self._worker.remembering(earlier), rules)

    def _encrypt_with(self, earlier: Mapping[Digest, EarlierLayer], rules: Rules) -> _Done:
        line, reach = self._line, self._reach
        encrypt = partial(
            encrypt_taking_over,
            source=str(self._pinned),
            destination=str(line.destination),
            recipients=self._keys.recipients,
            rules=rules,
            base=line.options.skip_base,
            jobs=self._worker.jobs,
            source_access=reach.source,
            destination_access=reach.destination,
            session=reach.session,
            progress=self.watch,
        )
        try:
            result = encrypt(earlier)
        except IntegrityError as error:
            if not earlier:
                raise
            self._notice(f"nothing is taken over: {error.message}")
            result = encrypt({})
        return _encrypted(result)

    def _rewrap(self) -> _Done:
        line, keys = self._line, self._keys
        with ExitStack() as stack:
            if line.destination is None:
                there = self._there(stack, line.source, self._reach.source)
                if there is None:
                    raise MovedError(line.source)
                if there.tree.manifest.digest != line.digest:  # an earlier run may have made it
                    planned = stack.enter_context(self._source(self._pinned))
                    before_it = read_tree(planned, configs=False)
                    if look_to_rewrap(before_it, there, keys.recipients).todo != "nothing":
                        raise MovedError(line.source)
                check_encrypted(there)
                look = look_at_recipients(there, keys.recipients)
                if look.todo == "nothing":
                    self.did = "nothing"
                    return _seen("unchanged", "nothing", there)
                return self._change_recipients(line.source, None, there, look, self._reach.source)
            before = self._there(stack, self._pinned, self._reach.source)
            if before is None:
                raise NotThereError(f"{self._pinned} is not there")
            check_encrypted(before)
            there = self._there(stack, line.destination)
            if there and look_to_rewrap(before.tree, there, keys.recipients).todo == "nothing":
                self.did = "nothing"
                return _seen("unchanged", "nothing", there)
            look = look_at_recipients(before, keys.recipients)
            return self._change_recipients(
                self._pinned, line.destination, before, look, self._reach.source
            )

    def _change_recipients(
        self,
        image: RegistryReference,
        destination: RegistryReference | None,
        before: OpenedImage,
        look: Look,
        access: Access,
    ) -> _Done:
        reach = self._reach
        result = rewrap_image(
            str(image),
            self._keys.openers,
            Changes(replace_by=self._keys.recipients, remove=look.remove),
            expected=before.tree.manifest.digest,
            destination=str(destination) if destination else None,
            source_access=access,
            destination_access=reach.destination if destination else None,
            session=reach.session,
            progress=self.watch,
        )
        return _Done("done", "rewrap", result.digest, result.recipients, before.counts)

    def _verify(self) -> _Done:
        options, keys = self._line.options, self._keys
        report = verify_image(
            str(self._pinned),
            keys.openers,
            rules=VerificationRules(
                expected_keys=keys.expected,
                target=options.target,
                allow_attestations=options.allow_attestations,
            ),
            base=options.skip_base,
            jobs=self._worker.jobs,
            access=self._reach.source,
            session=self._reach.session,
            progress=self.watch,
        )
        self._check_source()
        return _verified(report)

    def _inspect(self) -> _Done:
        found = inspect_image(
            str(self._pinned), access=self._reach.source, session=self._reach.session
        )
        self._check_source()
        layers = [layer for image in found.images for layer in image.layers]
        encrypted = sum(layer.encrypted for layer in layers)
        names = (packet.name for layer in layers for packet in layer.packets)
        return _Done(
            "done",
            "inspect",
            found.digest,
            tuple(dict.fromkeys(names)),
            LayerCounts(0, encrypted, len(layers) - encrypted),
            _failures(finding for layer in layers for finding in layer.findings),
        )

    def _check_source(self) -> None:
        """Raise ``MovedError`` unless the source's name points to what was planned."""
        line = self._line
        if line.source.tag is None:
            return
        try:
            with self._source(line.source) as source:
                now = source.digest()
        except NotThereError:
            raise MovedError(line.source) from None
        if now != line.digest:
            raise MovedError(line.source)

    def _source(self, image: RegistryReference) -> Source:
        return open_source(image, self._reach.source, self._reach.session)

    def _base(self, stack: ExitStack) -> BaseLayers | None:
        name = self._line.options.skip_base
        if name is None:
            return None
        reference = parse_image_reference(name)
        opened = open_source(reference, self._access_to(reference), self._reach.session)
        return base_layers(stack.enter_context(opened))

    def _access_to(self, reference: ImageReference) -> Access | None:
        line, reach = self._line, self._reach
        sides = [(line.source, reach.source)]
        if line.destination:
            sides.insert(0, (line.destination, reach.destination))
        return access_beside(reference, *sides)

    def _there(
        self, stack: ExitStack, image: RegistryReference, access: Access | None = None
    ) -> OpenedImage | None:
        """Return an image with its layers opened; None where there is none."""
        opened = open_source(image, access or self._reach.destination, self._reach.session)
        source = stack.enter_context(opened)
        try:
            tree = read_tree(source, configs=False)
        except NotThereError:
            return None
        return open_image(source, tree, self._keys.openers, self._keys.recipients)

    def _of_others(
        self, stack: ExitStack, plan: EncryptionPlan, look: Look
    ) -> dict[Digest, EarlierLayer]:
        """Return what other destinations have of the layers that this one lacks."""
        missing = {
            layer.layer.digest for layer in plan.layers(LayerAction.ENCRYPT)
        } - look.earlier.keys()
        found: dict[Digest, EarlierLayer] = {}
        for image in self._line.reuse:
            if missing <= found.keys():
                break
            try:
                there = self._there(stack, image, self._access_to(image))
            except CancelledError:
                raise
            except CocoKpError as error:
                self._notice(f"takes nothing over from {image}: {error.message}")
                continue
            found |= there.earlier if there else {}
        return found

    def _notice(self, text: str) -> None:
        self._worker.notice(f"{self._line.source}: {text}")


def _failures(findings: Iterable[CocoKpError]) -> tuple[Failure, ...]:
    """Return findings as results have them, the gravest first: whoever writes many is cut off."""
    gravest_first = sorted(findings, key=lambda finding: finding.severity, reverse=True)
    return tuple(map(Failure.of, gravest_first))


def _rules(options: Options) -> Rules:
    return Rules(
        platforms=tuple(map(parse_platform, options.platforms)),
        allow_foreign=options.allow_foreign,
        keep_attestations=options.keep_attestations,
        zstd=options.zstd,
    )


def _tree_to_encrypt(source: Source, rules: Rules, base: BaseLayers | None) -> Node:
    """Read the manifests that are planned for, and configs only where they decide something."""
    select = partial(entries_to_read, rules=rules)
    if not rules.platforms and base is None:
        tree = read_tree(source, configs=False, select=select)
        if not any(_may_be_compressed_anew(tree)):
            return tree
    return read_tree(source, select=select)


def _may_be_compressed_anew(tree: Node) -> Iterator[bool]:
    for image in images(tree):
        for layer in image.manifest.layers:
            yield compression_of(layer.media_type) == ZSTD


def _seen(outcome: Outcome, did: Did, there: OpenedImage) -> _Done:
    return _Done(outcome, did, there.tree.manifest.digest, there.recipients, there.counts)


def _encrypted(result: EncryptionResult) -> _Done:
    layers = [layer for image in result.images for layer in image.layers]
    written = {
        layer.digest: layer.written for layer in layers if layer.action is LayerAction.ENCRYPT
    }
    actions = [layer.action for layer in layers]
    return _Done(
        "done",
        "encrypt",
        result.digest,
        result.key_ids,
        LayerCounts(
            actions.count(LayerAction.ENCRYPT),
            sum(action in {LayerAction.REUSE, LayerAction.KEEP} for action in actions),
            sum(action.readable for action in actions),
        ),
        written=sum(written.values()),
    )


def _verified(report: VerificationReport) -> _Done:
    failure = report.failure
    found = [finding for layer in report.layers for finding in layer.findings]
    names = (packet.packet.name for layer in report.layers for packet in layer.recipients)
    encrypted = sum(layer.encrypted for layer in report.layers)
    return _Done(
        "done" if failure is None else _outcome(failure),
        "verify",
        report.digest,
        tuple(dict.fromkeys(names)),
        LayerCounts(0, encrypted, len(report.layers) - encrypted),
        _failures((*report.findings, *found)),
        None if failure is None else Failure.of(failure),
    )
