"""The Tekton Task of contrib/tekton."""

from __future__ import annotations

from typing import Any, Final

import yaml

from tests.support.markdown import ROOT

TASK: Final[dict[str, Any]] = yaml.safe_load(
    (ROOT / "contrib/tekton/encrypt.yaml").read_text(encoding="utf-8")
)
