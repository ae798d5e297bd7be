"""Lines of a plan: no image takes the name of another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coco_kp.errors import InputError
from coco_kp.fleet.lines import MAX_TEXTS, Action, parse_plan_line
from coco_kp.fleet.plan import FoundImage, Template, Wanted, plan_lines
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference
from tests.support.fleet import KEY


def found(*repositories: str) -> list[FoundImage]:
    return [
        FoundImage(RegistryReference("registry.example", name, "1"), Digest.of(name.encode()))
        for name in repositories
    ]


def wanted(action: Action, to: str) -> Wanted:
    return Wanted(action, Template(to), (KEY,), ("keypath=/run/keys/old",))


@pytest.mark.parametrize("action", ["encrypt", "rewrap"])
@pytest.mark.parametrize("host", ["registry.example", "Registry.Example:443"])
def test_plan_over_the_name_of_another_source_is_refused(action: Action, host: str) -> None:
    to = f"docker://{host}/team/{{repository}}:{{tag}}"
    with pytest.raises(InputError, match="is a source itself"):
        plan_lines(found("app", "team/app"), wanted(action, to))
    assert len(plan_lines(found("app", "team/db"), wanted(action, to))) == 2


def test_plan_of_rewrap_onto_the_own_name_is_one_in_place() -> None:
    to = "docker://registry.example/{repository}:{tag}"
    (line,) = plan_lines(found("app"), wanted("rewrap", to))
    assert line.destination == line.source


def test_plan_of_encryption_onto_the_own_name_is_refused() -> None:
    to = "docker://REGISTRY.example/{repository}:{tag}"
    with pytest.raises(InputError, match="is a source itself"):
        plan_lines(found("app"), wanted("encrypt", to))


def test_plan_of_image_of_very_many_layers_can_be_read() -> None:
    layers = [Digest.of(str(number).encode()) for number in range(1500)]
    singles = [
        replace(image, layers=(layer,))
        for image, layer in zip(found(*(f"app{n}" for n in range(1500))), layers, strict=True)
    ]
    images = [*singles, replace(*found("all"), layers=tuple(layers))]
    lines = plan_lines(images, wanted("encrypt", "docker://new.example/{repository}:{tag}"))
    assert len(lines[-1].reuse) == MAX_TEXTS
    assert parse_plan_line(lines[-1].to_json().encode()) == lines[-1]
