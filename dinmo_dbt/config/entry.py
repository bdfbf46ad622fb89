"""One dbt target's entry of a destination: what holds for it whatever the flow of its login."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from dinmo_dbt.codes import HOST_NOT_ALLOWED, NOT_ALLOWED, NOT_AN_ORGANIZATION_ID, SECRET_FILE_OPEN
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.dinmo_yml import TargetSpec
from dinmo_dbt.config.reading import Reading
from dinmo_dbt.org import organization_id, own_url, url_problem


@dataclass(frozen=True)
class Entry:
    """`chosen`: it is of the dbt target that is read; of any other only the keys and the plain texts are known."""

    reading: Reading
    destination: str
    target: str
    spec: TargetSpec
    chosen: bool

    @property
    def path(self) -> KeyPath:
        return ("destinations", self.destination, "targets", self.target)

    def final(self, text: str, *key: str) -> str | None:
        """The text at that key as it will be used, or None while it is not known."""
        return self.reading.final(text, (*self.path, *key), self.chosen)

    def add(self, code: str, message: str, *key: str, hint: str = "") -> None:
        self.reading.add(code, message, (*self.path, *key), hint)

    def organization_id(self) -> str | None:
        final = self.final(self.spec.organization_id, "organization_id") if self.spec.organization_id else None
        if not final:
            return None
        expanded = organization_id(final)
        if expanded is None:
            hint = "15 or 18 characters that start with 00D: Setup > Company Information > Organization ID"
            message = "not a Salesforce organization id, or mistyped"
            self.add(NOT_AN_ORGANIZATION_ID, message, "organization_id", hint=hint)
        return expanded

    def api_share(self) -> Decimal:
        final = self.final(self.spec.api_share, "api_share") if self.spec.api_share else None
        match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", final) if final else None
        share = Decimal(match[1]) if match else None
        if final and (share is None or not 0 < share <= 100):
            message = "expected a percentage above 0% and up to 100%"
            self.add(NOT_ALLOWED, message, "api_share", hint="api_share: 80%")
        return share or Decimal(80)

    def url(self, text: str | None, *key: str) -> str:
        final = self.final(text, *key) if text else None
        if not final:
            return ""
        if message := url_problem(final, tuple(self.spec.allowed_hosts)):
            shown = (
                f"{show(urlsplit(final).hostname or '')}: "
                if final == text and message == "not a Salesforce host"
                else ""
            )
            own = own_url(final) if final == text else ""
            hint = (
                "expected https://<domain>.my.salesforce.com, login.salesforce.com or test.salesforce.com; "
                "other hosts go under `allowed_hosts`"
            )
            hint = f"the org's own is {own}" if own else hint
            self.add(HOST_NOT_ALLOWED, shown + message, *key, hint=hint)
        return final.rstrip("/")

    def ca_file(self) -> Path | None:
        final = self.final(self.spec.ca_file, "ca_file") if self.spec.ca_file else None
        if not final or not self.chosen:
            return None
        file = self.reading.absolute(final)
        if not self.reading.offline:
            self.reading.is_readable(file, (*self.path, "ca_file"))
        return file

    def secret_file(self, text: str, *key: str) -> Path | None:
        """A file with a secret in it. Online it must exist, and be nobody's but its owner's and at most its group's."""
        final = self.final(text, *key)
        if not final or not self.chosen:
            return None
        file = self.reading.absolute(final)
        if self.reading.offline:
            return file
        if not self.reading.is_readable(file, (*self.path, *key)):
            return None
        # A group may read it: a mounted secret of a container that isn't root needs that.
        if file.stat().st_mode & 0o027:
            hint = "chmod 600 it; a mounted secret takes a mode: 0400 or 0440 (Kubernetes: defaultMode)"
            self.add(SECRET_FILE_OPEN, "other users of this machine may read or change this file", *key, hint=hint)
        return file
