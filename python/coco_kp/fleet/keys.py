"""The keys of a plan: each asked for once, before the first image, for all workers of a process.

Whoever asked for a key while the work goes on could get another one than those before him.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import KekError, RefusedError
from coco_kp.fleet.lines import PlanLine, parse_plan_key
from coco_kp.keys.named import NamedKey
from coco_kp.keys.reference import AwsKmsReference, name_of
from coco_kp.keys.resolve import FetchedKek, GivenKek, KeySettings, fetch, opener, resolve
from coco_kp.keys.wrapper import KekOpener, KeyOpener, KeyWrapper, Opener
from coco_kp.model.resource_uri import ResourceUri
from coco_kp.redact import shown
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class LineKeys:
    """The keys of one line, at hand.

    ``recipients`` are those for whom an image is encrypted, ``openers`` what opens one that is
    there, ``expected`` the names of recipients that are to be found in it.
    """

    recipients: tuple[KeyWrapper, ...]
    openers: tuple[Opener, ...]
    expected: tuple[ResourceUri | AwsKmsReference, ...]


Fingerprints = tuple[tuple[str, str], ...]
"""Which keys are meant: their names in a plan, and the fingerprints of what was got for them."""


@dataclasses.dataclass(slots=True)
class KeyRing:
    """Keys by their names in a plan; threads may share what :meth:`of` returns.

    Close it after all that uses them.
    ``warn`` takes what the owner of a key should know, each thing once.
    """

    warn: Callable[[str], None]
    _settings: KeySettings = dataclasses.field(init=False, repr=False)
    _told: set[str] = dataclasses.field(default_factory=set)
    _keks: dict[str, Kek] = dataclasses.field(default_factory=dict, repr=False)
    _recipients: dict[str, KeyWrapper] = dataclasses.field(default_factory=dict, repr=False)
    _openers: dict[str, KekOpener | KeyOpener] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Make what resolves keys."""
        self._settings = KeySettings(warn=self._warn_once)

    def of(self, line: PlanLine, expected: Fingerprints = ()) -> LineKeys:
        """Return the keys of a line; those that were not asked for yet, now.

        Raises ``KekError``, also where one is not the key that is ``expected``; ``RefusedError``
        for one that everybody knows; ``RemoteError``, ``InputError``.
        """
        named = {key: parse_plan_key(key, "a key", kid_needed=line.writes) for key in line.keys}
        old = [parse_plan_key(key, "an old key", kid_needed=False) for key in line.old_keys]
        recipients = tuple(self._recipient(*key) for key in named.items()) if line.writes else ()
        own: tuple[Opener, ...] = recipients or tuple(map(self._opener, named.values()))
        openers = (*own, *map(self._opener, old))
        self._check(expected)
        return LineKeys(
            recipients,
            openers,
            tuple(name for key in named.values() if (name := _name(key))),
        )

    def fingerprints(self, line: PlanLine) -> Fingerprints:
        """Return the fingerprints of a line's keys that are at hand, old ones too."""
        keys = (*line.keys, *line.old_keys)
        named = (parse_plan_key(key, "a key", kid_needed=False) for key in keys)
        names = sorted({str(key.source.reference) for key in named} & self._keks.keys())
        return tuple((name, self._keks[name].fingerprint) for name in names)

    def close(self) -> None:
        """Close the connections to where keys stay."""
        for opened in self._openers.values():
            if not isinstance(opened, KekOpener):
                opened.close()

    def _check(self, expected: Fingerprints) -> None:
        for name, fingerprint in expected:
            if self._keks[name].fingerprint != fingerprint:
                raise KekError(
                    f"the key {shown(name)} is not the same here as where the fleet was started",
                    "nothing was written: give both the same key",
                )

    def _recipient(self, text: str, key: NamedKey) -> KeyWrapper:
        if text not in self._recipients:
            source = key.source
            if isinstance(source, FetchedKek):
                kek = self._kek(source)
                if kek.fingerprint == Kek(SAMPLE_KEK).fingerprint:
                    raise RefusedError(
                        f"everybody knows the key {name_of(source.reference)}: it is the public "
                        "sample key",
                        "name a key of your own",
                    )
                made = resolve(GivenKek(kek), key.kid, self._settings)
            else:
                made = resolve(source, key.kid, self._settings)
            self._recipients[text] = made.prepare()
        return self._recipients[text]

    def _opener(self, key: NamedKey) -> Opener:
        name = str(key.source.reference)
        if name not in self._openers:
            if isinstance(key.source, FetchedKek):
                whose = f"the key of {name_of(key.source.reference)}"
                self._openers[name] = KekOpener(self._kek(key.source), whose)
            else:
                self._openers[name] = opener(key.source)
        return self._openers[name]

    def _kek(self, source: FetchedKek) -> Kek:
        name = str(source.reference)
        if name not in self._keks:
            self._keks[name] = fetch(source.reference, self._settings)
        return self._keks[name]

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.warn(text)


def _name(key: NamedKey) -> ResourceUri | AwsKmsReference | None:
    if key.kid is not None:
        return key.kid
    reference = key.source.reference
    return AwsKmsReference("", reference.key) if isinstance(reference, AwsKmsReference) else None
