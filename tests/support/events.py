"""What the code under test says of its work, kept: an observer of its events."""

from __future__ import annotations

from collections.abc import Mapping

Fields = dict[str, str | float]


class Events(list[tuple[str, Fields]]):
    """All events, with their fields; for ``observe.observed_by``."""

    def __call__(self, name: str, fields: Mapping[str, str | float]) -> None:
        self.append((name, dict(fields)))

    def outcomes(self, asked: str) -> list[str | float]:
        """Return how it ended, each time, that others of a kind were asked."""
        return [
            fields["outcome"]
            for name, fields in self
            if name == "asked" and fields["name"] == asked
        ]
