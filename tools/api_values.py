"""An extension of Griffe: classes of ``coco_kp.values`` are dataclasses, and show their parameters.

That module has its names from ``dataclasses`` for who only reads; Griffe asks where a name is
imported from, and not what it is there.
"""

from __future__ import annotations

import griffe


class Values(griffe.Extension):
    """Names the standard library's decorator, and its ``field``, where ours stand."""

    def on_class_instance(self, *, cls: griffe.Class, **_others: object) -> None:
        """Correct a class's decorators before Griffe's own extension looks at them."""
        for decorator in cls.decorators:
            _correct(decorator.value, "dataclass")

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_others: object) -> None:
        """Correct a member's value alike."""
        _correct(attr.value, "field")


def _correct(call: object, name: str) -> None:
    if isinstance(call, griffe.ExprCall) and call.canonical_path == f"coco_kp.values.{name}":
        call.function = griffe.ExprName(f"dataclasses.{name}")
