"""The org of an entry, and how to log in to it, by the flow that the entry names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dinmo_dbt.codes import FILE_NOT_READ, FLOW_NOT_OFFERED, HOST_NOT_ALLOWED, KEYS_CONFLICT, NOT_ALLOWED, REQUIRED_KEY
from dinmo_dbt.config import declaration
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.dinmo_yml import SECRET_KEYS, AuthSpec
from dinmo_dbt.config.entry import Entry
from dinmo_dbt.config.flows import BY_PASSWORD, FLOW_KEYS, FLOWS, NOT_OFFERED, keys_of
from dinmo_dbt.durable import read_file
from dinmo_dbt.org import LOGIN_HOSTS, Credentials, Org, Secret

SECRET_FILE_BYTES_MAX = 64 * 1024


def org_of(entry: Entry) -> Org | None:
    """The org of one entry; None where something is wrong with it."""
    spec = entry.spec
    if spec.org:
        others = sorted(spec.model_fields_set - {"org", "shares_org_with"})
        if others:
            entry.add(KEYS_CONFLICT, f"`org: emulator` needs no other key: remove {declaration.listed(others)}")
        return Org(entry.destination, entry.target, None)
    if spec.auth is None:
        hint = "auth: {flow: jwt, client_id: ..., username: ..., private_key_path: ...}, or org: emulator"
        entry.add(REQUIRED_KEY, "'auth' is required, or `org: emulator`", hint=hint)
        return None
    before = len(entry.reading.found.problems)
    credentials = _credentials(entry, spec.auth)
    pin, share, ca_file = entry.organization_id(), entry.api_share(), entry.ca_file()
    if len(entry.reading.found.problems) > before:
        return None
    return Org(entry.destination, entry.target, credentials, pin, share, ca_file, tuple(spec.allowed_hosts))


def _credentials(entry: Entry, auth: AuthSpec) -> Credentials | None:
    flow = entry.final(auth.flow, "auth", "flow")
    if flow is None:
        return None
    if flow not in FLOW_KEYS:
        code, message = NOT_ALLOWED, f"{show(flow)} is not a flow{declaration.did_you_mean(flow, FLOW_KEYS)}"
        if flow in BY_PASSWORD:
            code, message = FLOW_NOT_OFFERED, NOT_OFFERED
        entry.add(code, message, "auth", "flow", hint=f"use one of: {FLOWS}")
        return None
    allowed = {"flow", *keys_of(flow)} | {f"{key}_path" for key in keys_of(flow) if key in SECRET_KEYS}
    for key in sorted(auth.model_fields_set - allowed):
        entry.add(KEYS_CONFLICT, f"flow {flow} has no use for {show(key)}", "auth", key)
    login_url = entry.url(entry.spec.login_url, "login_url")
    if auth.alias and auth.username and flow == "sf_cli":
        entry.add(KEYS_CONFLICT, "both 'alias' and 'username' are given", "auth", hint="keep one of them")
    if flow not in ("access_token", "sf_cli") and entry.spec.login_url is None:
        hint = 'login_url: "https://acme.my.salesforce.com"'
        entry.add(REQUIRED_KEY, f"flow {flow} needs 'login_url'", hint=hint)
    if flow == "client_credentials" and urlsplit(login_url).hostname in LOGIN_HOSTS:
        message = "flow client_credentials needs the org's own My Domain URL here (OAuth 2.0 Client Credentials Flow)"
        entry.add(HOST_NOT_ALLOWED, message, "login_url")
    login = _AuthKeys(entry, auth, flow)
    return Credentials(
        flow=flow,
        login_url=login_url,
        client_id=login.text("client_id"),
        username=login.text("username"),
        audience=entry.url(auth.audience, "auth", "audience") if flow == "jwt" else "",
        private_key_path=login.key_file(),
        client_secret=login.secret("client_secret"),
        instance_url=entry.url(login.text("instance_url") and auth.instance_url, "auth", "instance_url"),
        access_token=login.secret("access_token"),
        refresh_token=login.secret("refresh_token"),
        alias=login.text("alias"),
    )


@dataclass(frozen=True)
class _AuthKeys:
    """The keys under `auth`, for a flow."""

    entry: Entry
    auth: AuthSpec
    flow: str

    def text(self, key: str) -> str:
        """The rendered value of a key that the flow needs or may have; empty for any other."""
        if key not in keys_of(self.flow):
            return ""
        text: str | None = getattr(self.auth, key)
        if text is None:
            if key in FLOW_KEYS[self.flow]:
                self.entry.add(REQUIRED_KEY, f"flow {self.flow} needs {show(key)}", "auth")
            return ""
        return self.entry.final(text, "auth", key) or ""

    def key_file(self) -> Path | None:
        if not self.text("private_key_path"):
            return None
        return self.entry.secret_file(self.auth.private_key_path or "", "auth", "private_key_path")

    def secret(self, key: str) -> Secret | None:
        """A secret from its key or, by `<key>_path`, from a file; not read offline."""
        if key not in keys_of(self.flow):
            return None
        by_file: str | None = getattr(self.auth, f"{key}_path")
        if by_file is None:
            text = self.text(key)
            return Secret(text.strip()) if text or key in FLOW_KEYS[self.flow] else None
        if getattr(self.auth, key) is not None:
            message = f"both {show(key)} and '{key}_path' are given"
            self.entry.add(KEYS_CONFLICT, message, "auth", hint="keep one of them")
        file = self.entry.secret_file(by_file, "auth", f"{key}_path")
        if file is None or self.entry.reading.offline or not self.entry.chosen:
            return Secret("")
        try:
            text = read_file(file, SECRET_FILE_BYTES_MAX).decode().strip()
        except (OSError, UnicodeDecodeError):
            self.entry.add(FILE_NOT_READ, "the file can't be read as text", "auth", f"{key}_path")
            return None
        if not text:
            self.entry.add(FILE_NOT_READ, "the file is empty", "auth", f"{key}_path")
        return Secret(text)
