"""Whose signature an org's certificate must have: the usual authorities, or those that somebody named."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from dinmo_dbt.codes import HOST_NOT_TRUSTED
from dinmo_dbt.errors import AuthError

_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def authorities(named: Path | None, env: Mapping[str, str]) -> str | None:
    """The file, or folder, of certificates to trust instead of the usual ones; None for those. AuthError DB603 if it is
    none: the destination's own, else the environment's, by the names that other programs know."""
    variable = next((name for name in _VARIABLES if env.get(name)), "")
    path, source = (named, "ca_file") if named is not None else (Path(env.get(variable, "")), variable)
    if not source:
        return None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ValueError):  # an SSLError is an OSError
        hint = "a PEM file: -----BEGIN CERTIFICATE-----"
        raise AuthError(
            HOST_NOT_TRUSTED, f"{source} names no file of certificates", where=str(path), hint=hint
        ) from None
    return str(path)
