"""Writing into a KBS: what its administrator may do (docs/protocols.md 5.1 and 5.6)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, NotStoredError, RemoteError
from coco_kp.kbs.client import resource_path
from coco_kp.values import dataclass, replace

if TYPE_CHECKING:
    from coco_kp.kbs.admin_token import AdminToken
    from coco_kp.kbs.client import Answer, Kbs
    from coco_kp.kbs.refusal import Refusal
    from coco_kp.model.resource_uri import ResourceUri

_PKCS11: Final = "pkcs11"
"""Trustee's plugin for an HSM. It stores under ``resource/<repository>/<type>/<tag>``."""

_MOST_OBJECTS: Final = 100
"""Objects of one name that are deleted from an HSM at the most."""

_FAILED: Final = "PluginInternalError"
"""All that a KBS says where its plugin has nothing to delete, or cannot store."""

_NO_PLUGIN: Final = "PluginNotFound"

_CANNOT_STORE: Final = {
    "resource": "the storage of this KBS takes no keys from it: AWS, GCP and Aliyun are only read, "
    "and Vault takes text alone before Trustee 0.16; write the key into that store itself",
    _PKCS11: "the HSM of the KBS did not take it: the log of the KBS says why",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admin:
    """A KBS and the right to write into it; without ``token`` only to one that lets everybody.

    Each call takes 30 seconds at the most. It raises ``RemoteError`` unless the KBS says that it is
    done, ``KekError`` for a token that is out of date, ``InputError`` for a key ID that this KBS
    cannot hold.
    """

    kbs: Kbs
    token: AdminToken | None

    def put(self, uri: ResourceUri, resource: bytes) -> None:
        """Store a resource, over one that is there: ask ``Registrar`` to be careful.

        The plugin ``pkcs11`` replaces nothing: it keeps one more, and hands out any of them.
        """
        self._store(uri, resource)
        if uri.plugin == _PKCS11:
            _log.warning(
                "if '%s' had a key before, that is still there, and guests may get it, unless it "
                "is deleted first",
                uri,
            )

    def replace(self, uri: ResourceUri, resource: bytes) -> None:
        """Store a resource in place of all that are there.

        With the plugin ``pkcs11`` there is none for a moment, and none afterwards if this fails.
        """
        self.check(uri)
        with self.kbs.one_use():
            deleted = self._delete_all(uri) if uri.plugin == _PKCS11 else 0
            try:
                self._store(uri, resource)
            except RemoteError as error:
                if not deleted:
                    raise
                raise error.adding(f"what it had there is deleted ({deleted} keys)") from None

    def _store(self, uri: ResourceUri, resource: bytes) -> None:
        self.check(uri)
        answer = self._call(
            "POST",
            resource_path(uri),
            body=resource,
            content_type="application/octet-stream",
            repeatable=True,
        )
        if refusal := answer.refusal:
            error = self._refused(refusal.without_text(), f"register '{uri}'")
            if refusal.variant == _FAILED:
                error.hint = _CANNOT_STORE[uri.plugin]
                error.code = "kbs-cannot-store"
            if refusal.is_about_admin or refusal.variant == _NO_PLUGIN:
                raise error.blaming(NotStoredError)
            raise error
        if answer.body:
            raise RemoteError(
                f"what answers at {self.kbs.url} did not register '{uri}': it sent a document, "
                "where a KBS that has stored a key sends none",
                "check host, port and path prefix of the address of the KBS",
            )
        if uri.plugin == _PKCS11:
            _log.warning(
                "the KBS loses '%s' when it restarts: its plugin pkcs11 keeps keys for one session "
                "of the HSM; write it to the token yourself, for example with pkcs11-tool",
                uri,
            )

    def _delete_all(self, uri: ResourceUri) -> int:
        """Delete the objects of a name from an HSM, each by a call; return how many there were."""
        for count in range(_MOST_OBJECTS):
            answer = self._call("DELETE", resource_path(uri), repeatable=True)
            if not (refusal := answer.refusal):
                continue
            if refusal.variant == _FAILED:
                return count
            raise self._refused(refusal, f"delete '{uri}'")
        raise RemoteError(
            f"the KBS {self.kbs.url} goes on deleting '{uri}' after {_MOST_OBJECTS} times",
            "check host, port and path prefix of the address of the KBS",
        )

    def list_policies(self) -> Answer:
        """Ask for something that only an admin may see and that changes nothing."""
        answer = self._call("GET", "resource-policy", repeatable=True)
        if answer.refusal:
            raise self._refused(answer.refusal, "accept the admin token")
        return answer

    def check(self, uri: ResourceUri) -> None:
        """See that a key ID names something that can be stored in this KBS. Raises ``InputError``.

        Guests of one release refuse a key ID with the address of another KBS, and no KBS stores
        through another plugin than ``resource`` and ``pkcs11``.
        """
        if uri.plugin not in ("resource", _PKCS11):
            raise InputError(
                f"'{uri}' cannot be registered: a KBS stores keys with its plugins 'resource' and "
                "'pkcs11' only",
                "use a key ID that begins with kbs://",
            )
        if uri.plugin == _PKCS11 and (len(uri.segments) != 4 or uri.segments[0] != "resource"):
            raise InputError(
                f"'{uri}' cannot be registered: the plugin 'pkcs11' of a KBS stores keys under "
                "resource/<repository>/<type>/<tag>",
                "use a key ID such as kbs+pkcs11:///resource/default/key/1",
            )
        if uri.query:
            raise InputError(f"'{uri}' cannot be registered: it has a query")
        if not self.kbs.url.names(uri.address):
            raise InputError(
                f"'{uri}' names another KBS than {self.kbs.url}, where it would be registered",
                f"leave the address out: {replace(uri, address='')}",
            )

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        repeatable: bool = False,
    ) -> Answer:
        return self.kbs.call(
            method,
            path,
            bearer=self.token.bearer() if self.token else "",
            body=body,
            content_type=content_type,
            repeatable=repeatable,
        )

    def _refused(self, refusal: Refusal, what: str) -> RemoteError:
        """Return the error; its hint is another where no token was sent at all."""
        if self.token or not refusal.is_about_admin:
            return refusal.error(what)
        error = refusal.error(what, "no admin token was sent: set COCO_KP_ADMIN_TOKEN")
        error.code = "admin-token-missing"
        return error
