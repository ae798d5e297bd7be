"""Where the images of a plan are written: none over another, and none over another's original."""

from __future__ import annotations

from coco_kp.errors import InputError
from coco_kp.fleet.lines import PlanLine, place
from coco_kp.model.reference import RegistryReference


class Destinations:
    """What the lines of a plan write. They may be of several plans that were put together."""

    def __init__(self) -> None:
        self._sources: set[RegistryReference] = set()
        self._written: list[tuple[RegistryReference, RegistryReference]] = []

    def add(self, line: PlanLine) -> None:
        """Learn of a line."""
        if not line.writes:
            return
        source = place(line.source)
        self._sources.add(source)
        in_place = (
            line.action == "rewrap" and line.destination and place(line.destination) == source
        )
        if line.destination and not in_place:
            self._written.append((line.source, line.destination))

    def check(self) -> None:
        """Raise ``InputError`` if two images would get one name, or one would lose its own."""
        taken: dict[RegistryReference, RegistryReference] = {}
        for source, destination in self._written:
            there = place(destination)
            if there in self._sources:
                raise InputError(
                    f"{source} would be written to {destination}, which is a source itself",
                    "its original would lose its name: choose another destination",
                )
            other = taken.setdefault(there, source)
            if other != source:
                raise InputError(
                    f"{other} and {source} would both be written to {destination}",
                    "plan with {repository} and {tag} in the template",
                )
