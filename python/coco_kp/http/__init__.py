"""The one HTTP client: bounded in size and time, silent about secrets, never surprising.

What it promises to a registry's or a KBS's client:

* TLS with the system's roots unless told otherwise; plain ``http://`` only where the caller allows.
* No redirect is followed: the caller reads :attr:`Response.location` and decides which headers go
  along (:func:`same_origin` tells whether credentials may).
* Nothing waits for ever: connecting, each read, the whole head of an answer, and within a deadline
  (:mod:`coco_kp.deadline`) the whole exchange. Nothing is repeated unless the caller asks
  (:class:`Retry`).
* Bodies stream in both directions; documents have a size limit.
* Errors name method, scheme, host and path, never a query (signed URLs), user info, header or
  request body; what the other side said is cut short, made printable, and stripped of our own
  credentials.

Proxies come from ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``; loopback is never proxied.
"""

from coco_kp.http.client import HttpClient, PlainHttp
from coco_kp.http.pace import Pace
from coco_kp.http.response import Response
from coco_kp.http.retry import NEVER, Retry
from coco_kp.http.tls import Tls
from coco_kp.http.url import display_url, is_loopback, same_origin

__all__ = [
    "NEVER",
    "HttpClient",
    "Pace",
    "PlainHttp",
    "Response",
    "Retry",
    "Tls",
    "display_url",
    "is_loopback",
    "same_origin",
]
