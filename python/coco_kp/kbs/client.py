"""Calls to a Trustee KBS: where it is, how long one may take, and what its refusals mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from coco_kp.deadline import pause, within
from coco_kp.errors import Hint, InputError, RefusedError, RemoteError
from coco_kp.http import NEVER, HttpClient, Retry, Tls, is_loopback
from coco_kp.kbs.refusal import Refusal
from coco_kp.model.encoding import parse_json_object
from coco_kp.model.kbs_url import API
from coco_kp.observe import asking
from coco_kp.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from coco_kp.model.kbs_url import KbsUrl
    from coco_kp.model.resource_uri import ResourceUri

DEADLINE: Final = 30.0
"""Seconds that one use of a KBS may take, from the first byte sent to the last received; where that
needs several calls, all of them."""

_LIMIT: Final = 1024 * 1024  # bytes of an answer; a token of a TDX guest has some 20 KiB
_RETRY: Final = Retry(2)
_CA_HINT: Final = Hint(
    "if the KBS has a certificate authority of its own, name its certificate",
    "kbs-certificate-untrusted",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the KBS said; ``refusal`` is None on success."""

    refusal: Refusal | None
    body: bytes = field(repr=False)
    headers: Mapping[str, str]

    def document(self) -> dict[str, object]:
        """Read the body as a JSON object. Raises ``RemoteError``."""
        try:
            return parse_json_object(self.body, "the answer of the KBS", _LIMIT)
        except InputError as error:
            raise RemoteError(error.message, "is it really a KBS that answers here?") from error


class Kbs:
    """One KBS and the connections to it; threads may share it.

    ``ca_file`` (PEM) is trusted beside the system's roots. Plain http goes to loopback only unless
    ``insecure_http`` is set: whoever listens on the way would learn what is registered. Raises
    ``RefusedError`` for it, before anything is sent.
    """

    def __init__(
        self,
        url: KbsUrl,
        *,
        ca_file: Path | None = None,
        insecure_http: bool = False,
        deadline: float = DEADLINE,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        if url.scheme == "http" and not insecure_http and not is_loopback(url.host):
            raise RefusedError(
                f"the KBS address '{url}' is plain http: anyone on the way can read and change it",
                "use https",
                code="kbs-without-tls",
            )
        self.url = url
        self._deadline = deadline
        self._http = HttpClient(
            tls=Tls(ca_files=(ca_file,) if ca_file else ()),
            plain_http="allowed" if insecure_http else "loopback",
            ca_hint=_CA_HINT,
            sleep=sleep,
        )

    def one_use(self) -> AbstractContextManager[None]:
        """Bound what is done in a block, which uses the KBS once: it may take that many calls."""
        return within(self._deadline)

    def call(
        self,
        method: str,
        path: str,
        *,
        bearer: str = "",
        cookie: str = "",
        body: bytes | None = None,
        content_type: str = "application/json",
        repeatable: bool = False,
    ) -> Answer:
        """Send one request to ``/kbs/v0/<path>`` and read the whole answer.

        ``repeatable`` says that sending it twice does no harm. Raises ``RemoteError``.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
        headers |= {"Cookie": cookie} if cookie else {}
        with asking("kbs") as question, self.one_use():
            response = self._http.request(
                method,
                f"{self.url}{API}/{path}",
                headers=headers,
                body=body,
                retry=_RETRY if repeatable else NEVER,
                load=_LIMIT,
            )
            answer = response.document(_LIMIT)
            question.refused = response.status != 200
        if response.status == 200:
            return Answer(None, answer, response.headers)
        refusal = Refusal.of(str(self.url), response.status, answer, response.quote)
        return Answer(refusal, answer, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resource_path(uri: ResourceUri) -> str:
    """Return the path behind ``/kbs/v0/`` under which a resource is read and written."""
    return f"{uri.plugin}/{uri.path}" + (f"?{uri.query}" if uri.query else "")
