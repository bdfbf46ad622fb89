"""The flows of a login: which keys each needs, and which it may have. Pure."""

from __future__ import annotations

FLOW_KEYS = {
    "jwt": ("client_id", "username", "private_key_path"),
    "client_credentials": ("client_id", "client_secret"),
    "refresh_token": ("client_id", "refresh_token"),
    "sf_cli": (),
    "access_token": ("instance_url", "access_token"),
}

_OPTIONAL_KEYS = {"jwt": ("audience",), "refresh_token": ("client_secret",), "sf_cli": ("alias", "username")}

BY_PASSWORD = ("password",)

NOT_OFFERED = "flow password is not offered: new orgs refuse it, and every org does from February 2027"

FLOWS = ", ".join(FLOW_KEYS)


def keys_of(flow: str) -> tuple[str, ...]:
    return (*FLOW_KEYS[flow], *_OPTIONAL_KEYS.get(flow, ()))
