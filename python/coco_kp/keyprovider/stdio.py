"""The door that ocicrypt's ``cmd`` mode uses: one request on stdin, its answer on stdout.

Nothing is written before the whole answer is known: the client parses all of stdout, whatever the
exit status (docs/protocols.md 2.2).
"""

from __future__ import annotations

from typing import BinaryIO

from coco_kp.keyprovider.call import Call, Handler
from coco_kp.model.encoding import MAX_MESSAGE


def answer_stdio(handler: Handler, source: BinaryIO, sink: BinaryIO) -> None:
    """Read one request to its end, at most 4 MiB, and write its answer. Raises ``CocoKpError``."""
    response = handler(Call(source.read(MAX_MESSAGE + 1)))
    sink.write(response)
    sink.flush()
