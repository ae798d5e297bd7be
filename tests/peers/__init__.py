"""Real peers: the programs of others that the tests run against.

Where they come from:

- ``debian``: skopeo and the registry 2.8.3 of Debian 13, unpacked into the cache, not installed;
- ``distribution``: the current registry, built by the machine's own Go;
- ``folder``: programs built by hand, in the folder that ``COCO_KP_PEERS`` names;
- the machine's own ``PATH``, where its skopeo knows key providers.

``skopeo``, ``registry``, ``upstream`` and ``kbs`` run them; ``daemon`` starts and stops programs in
the background. A peer that cannot be had is a `PeerUnavailableError`: a skipped test, or with
``COCO_KP_REQUIRE_PEERS=1`` a failed one (``tests/conftest.py``). ``python -m tests.peers`` fetches
them all and says what it got.
"""

import os


def peers_required() -> bool:
    """Say whether a peer that cannot be had is a failure: CI sets ``COCO_KP_REQUIRE_PEERS=1``."""
    return os.environ.get("COCO_KP_REQUIRE_PEERS") == "1"
