"""Who speaks for this machine when a KBS asks what it is.

* ``sample``: evidence that proves nothing; only a KBS under test accepts it.
* ``aa``: the real evidence of the guest, from its Attestation Agent's REST API.

Others come as plug-ins (:mod:`coco_kp.plugins`), whose function takes the agent's address (may be
empty) and returns an ``Attester``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlencode

from coco_kp.deadline import within
from coco_kp.errors import InputError, RefusedError, RemoteError
from coco_kp.http import HttpClient
from coco_kp.kbs.session import Session
from coco_kp.kbs.tee_key import TeeKey
from coco_kp.model.encoding import encode_base64, parse_json_object
from coco_kp.model.rcar import parse_token
from coco_kp.plugins import PluginGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT_URL: Final = "http://127.0.0.1:8006"
"""Where the REST API of a guest listens unless it was told otherwise."""

PLUGINS: Final = PluginGroup(
    "coco_kp.attesters",
    kind="attester",
    code="attester-unknown",
    builtin=("sample", "aa"),
    methods=("additional_evidence", "primary_evidence"),
    attributes=("tee",),
)
"""Other attesters."""

_AGENT_DEADLINE: Final = 15.0  # seconds for one answer: quotes come from slow hardware
_AGENT_LIMIT: Final = 1024 * 1024  # bytes of one answer


class Attester(Protocol):
    """Proves to a KBS what this machine is."""

    @property
    def tee(self) -> str:
        """The kind of TEE in the KBS's words, such as ``snp``, ``tdx`` or ``sample``."""

    def additional_evidence(self, report_data: bytes) -> str:
        """Return the evidence of attached devices as JSON text, empty without any."""

    def primary_evidence(self, report_data: bytes) -> Mapping[str, object]:
        """Return the TEE's own evidence, with the raw digest ``report_data`` bound into it."""


def load(name: str, agent: str = "") -> Attester:
    """Find an attester by its name; ``agent`` is the address of the Attestation Agent.

    Raises ``InputError`` for an unknown one.
    """
    match name:
        case "sample":
            return Sample()
        case "aa":
            return Agent(agent or AGENT_URL)
    return cast("Attester", PLUGINS.open(name, agent))


def check_name(name: str) -> None:
    """Raise ``InputError`` for the name of no attester, or of several; loads none."""
    if name not in PLUGINS.builtin:
        PLUGINS.find(name)


class Sample:
    """Evidence that anybody can make (docs/protocols.md 5.3)."""

    tee = "sample"

    def additional_evidence(self, report_data: bytes) -> str:  # noqa: ARG002 (the interface)
        """Return an empty text: there are no devices."""
        return ""

    def primary_evidence(self, report_data: bytes) -> Mapping[str, object]:
        """Repeat the digest: all that the sample verifier compares."""
        return {"svn": "1", "report_data": encode_base64(report_data)}


class Agent:
    """The Attestation Agent of the guest, over the REST API that it offers to containers.

    Source: guest-components ``api-server-rest``. The API listens on loopback only.
    """

    def __init__(self, url: str = AGENT_URL) -> None:
        self._url = url.rstrip("/")

    @cached_property
    def tee(self) -> str:
        """Ask the agent what TEE this is. Raises ``RemoteError``."""
        tee = self._info.get("tee")
        if not isinstance(tee, str) or not tee:
            raise RemoteError(
                f"the attestation agent at {self._url} does not say what TEE this is",
                "start the guest's API server with the feature 'attestation' or 'all'",
            )
        return tee

    def additional_evidence(self, report_data: bytes) -> str:
        """Ask for the evidence of devices, if the agent knows any."""
        if not self._info.get("additional_tees"):
            return ""
        return self._get("aa/additional-evidence", _bound(report_data)).decode("utf-8", "replace")

    def primary_evidence(self, report_data: bytes) -> Mapping[str, object]:
        """Ask for the TEE's evidence, a JSON object of the TEE's own form."""
        return self._document("aa/evidence", _bound(report_data))

    def session(self) -> Session:
        """Ask for a ready token: the agent attests itself to the KBS that it is configured for."""
        document = self._document("aa/token", {"token_type": "kbs"})
        pem = document.get("tee_keypair")
        if not isinstance(pem, str):
            raise RemoteError(f"the attestation agent at {self._url} gave a token without its key")
        token = parse_token(document, f"the attestation agent at {self._url}")
        return Session(token, TeeKey.from_pem(pem))

    @cached_property
    def _info(self) -> Mapping[str, object]:
        return self._document("info", {})

    def _document(self, path: str, query: Mapping[str, str]) -> dict[str, object]:
        body = self._get(path, query)
        try:
            return parse_json_object(body, f"the attestation agent's answer to {path}")
        except InputError as error:
            raise RemoteError(error.message, "is it an Attestation Agent that answers?") from error

    def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        url = f"{self._url}/{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            with within(_AGENT_DEADLINE), HttpClient(plain_http="loopback") as http:
                response = http.request("GET", url, load=_AGENT_LIMIT)
        except RefusedError as error:
            hint = f"the agent's API listens within the guest alone, at {AGENT_URL}"
            raise RefusedError(
                error.message, hint, code="agent-not-local", url=AGENT_URL
            ) from error
        if response.status != 200:
            raise RemoteError(
                f"the attestation agent refused: {response.request}: {response.outcome}",
                "see the guest's log of attestation-agent and api-server-rest",
            )
        return response.document(_AGENT_LIMIT)


def _bound(report_data: bytes) -> dict[str, str]:
    text = encode_base64(report_data).rstrip("=").translate(str.maketrans("+/", "-_"))
    return {"runtime_data": text, "encoding": "base64"}
