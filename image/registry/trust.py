"""Whom connections to a registry trust: the system's CAs, or beside them those that the host's administrator
laid down for this registry (`endpoints.CERTIFICATES`)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from model.errors import InvalidInput


def context_for(host: str, folders: Sequence[str]) -> ssl.SSLContext | bool:
    """Of the first folder that has one for `host`; True, the system's CAs, where none has. Blocks for a few
    reads. Raises InvalidInput for files that are no certificates."""
    for folder in folders:
        place = os.path.join(folder, host)
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        context = ssl.create_default_context()
        for name in names:
            path = os.path.join(place, name)
            try:
                if name.endswith(".crt"):
                    context.load_verify_locations(cafile=path)
                elif name.endswith(".cert"):
                    context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
            except (OSError, ssl.SSLError) as error:
                words = error.strerror or str(error)
                raise InvalidInput(
                    f"registry {host}: {path} can't be used: {words}",
                    hint="*.crt are CAs in PEM; x.cert goes with x.key",
                ) from error
        return context
    return True
