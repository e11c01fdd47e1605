"""A host asks for its next certificate (`POST /v1/agents/renew`). Pure."""

from __future__ import annotations

from model.spec import Struct


class RenewRequest(Struct):
    """From a host of the fleet, for its next certificate. `csr` is PEM, for a key of its own."""

    csr: str


class RenewReply(Struct):
    certificate: str
    """PEM, leaf first, then the CA."""
