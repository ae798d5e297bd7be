"""Writing into a KBS: what its administrator may do (docs/protocols.md 5.1 and 5.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coco_kp.errors import InputError, RemoteError
from coco_kp.kbs.client import deadline, resource_path

if TYPE_CHECKING:
    from coco_kp.kbs.admin_token import AdminToken
    from coco_kp.kbs.client import Answer, Kbs
    from coco_kp.kbs.refusal import Refusal
    from coco_kp.model.resource_uri import ResourceUri


@dataclass(frozen=True, slots=True)
class Admin:
    """A KBS and the right to write into it; without ``token`` only to one that lets everybody.

    Each call takes 30 seconds at the most, or until ``end`` on the monotonic clock. It raises
    ``RemoteError`` unless the KBS says that it is done, ``KekError`` for a token that is out of
    date, ``InputError`` for a key id that this KBS cannot hold.
    """

    kbs: Kbs
    token: AdminToken | None

    def put(self, uri: ResourceUri, resource: bytes, end: float | None = None) -> None:
        """Store a resource, over one that is there: ask ``Registrar`` to be careful."""
        self.check(uri)
        answer = self._call(
            "POST",
            resource_path(uri),
            end=end,
            body=resource,
            content_type="application/octet-stream",
            repeatable=True,
        )
        if answer.refusal:
            raise answer.refusal.without_text().error(
                f"register '{uri}'", self._hint(answer.refusal)
            )
        if answer.body:
            raise RemoteError(
                f"what answers at {self.kbs.url} did not register '{uri}': it sent a document, "
                "where a KBS that has stored a key sends none",
                "check host, port and path prefix of the address of the KBS",
            )

    def delete(self, uri: ResourceUri) -> None:
        """Delete a resource; that there is none is an error, too."""
        self.check(uri)
        answer = self._call("DELETE", resource_path(uri))
        if answer.refusal:
            raise answer.refusal.error(f"delete '{uri}'", self._hint(answer.refusal))

    def list_policies(self) -> Answer:
        """Ask for something that only an admin may see and that changes nothing."""
        answer = self._call("GET", "resource-policy", repeatable=True)
        if answer.refusal:
            raise answer.refusal.error("accept the admin token", self._hint(answer.refusal))
        return answer

    def check(self, uri: ResourceUri) -> None:
        """See that a key id names something that can be stored in this KBS. Raises ``InputError``.

        Guests of one release refuse a key id with the address of another KBS, and no KBS stores
        through another plugin than ``resource``.
        """
        if uri.plugin != "resource":
            raise InputError(
                f"'{uri}' cannot be registered: a KBS stores keys with its plugin 'resource' only",
                "use a key id that begins with kbs://",
            )
        if uri.query:
            raise InputError(f"'{uri}' cannot be registered: it has a query")
        if not self.kbs.url.names(uri.address):
            raise InputError(
                f"'{uri}' names another KBS than {self.kbs.url}, where it would be registered",
                f"leave the address out: kbs:///{uri.path}",
            )

    def _call(
        self,
        method: str,
        path: str,
        *,
        end: float | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        repeatable: bool = False,
    ) -> Answer:
        return self.kbs.call(
            method,
            path,
            end=deadline() if end is None else end,
            bearer=self.token.bearer() if self.token else "",
            body=body,
            content_type=content_type,
            repeatable=repeatable,
        )

    def _hint(self, refusal: Refusal) -> str:
        """Replace the variant's hint where no token was sent at all."""
        if self.token or not refusal.is_about_admin:
            return ""
        return (
            "no admin token was sent: pass --admin-token-file or --auth-private-key, or set "
            "COCO_KP_ADMIN_TOKEN"
        )
