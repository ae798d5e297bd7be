"""How tests reach a registry."""

from __future__ import annotations

from typing import Final

from coco_kp.transport import Access

PLAIN: Final = Access(tls_verify=False)
"""Plain HTTP is allowed."""

REPOSITORY: Final = "team/app"
