"""Real peers: the programs of others that the tests run against (docs/peers.md).

Where they come from:

- ``debian``: skopeo, buildah, podman, umoci, a registry and an HSM in software, unpacked into the
  cache, not installed;
- ``golang``: a second registry, and a client of the newest library, built by the machine's own Go;
- ``pypi``: programs in Python, installed into folders of their own;
- ``folder``: programs that no registry has, in the folder that ``COCO_KP_PEERS`` names.

``skopeo``, ``builder``, ``registry``, ``softhsm``, ``local_kms``, ``moto``, ``upstream``, ``kbs``,
``simple_kbs`` and ``verdictd`` run them; ``daemon`` starts and stops programs in the background. A
peer that cannot be had is a `PeerUnavailableError`: a skipped test, or with
``COCO_KP_REQUIRE_PEERS=1`` a failed one (``skipping``). ``python -m tests.peers`` fetches all
``sources`` and says what it got.
"""

import os


def peers_required() -> bool:
    """Return whether a peer that cannot be had is a failure, as CI says it is."""
    return os.environ.get("COCO_KP_REQUIRE_PEERS") == "1"
