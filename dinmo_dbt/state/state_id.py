"""Whose state: each activation has one for each dbt target and org, and none of them knows another's rows."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

# What identifies a row of the state's tables; a `StateId` is its parameters.
OWN = "org_id = ? AND target = ? AND name = ?"


class StateId(NamedTuple):
    """The activation `name`, under the dbt target `target`, in the org of that 18-character id."""

    org_id: str
    target: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} in org {self.org_id}, target {self.target}"

    @property
    def folder(self) -> str:
        """Where its files are, below a folder for files of one kind."""
        return f"{self.org_id}/{_safe(self.target)}/{_safe(self.name)}"

    @property
    def file_name(self) -> str:
        return f"{self.org_id}+{_safe(self.target)}+{_safe(self.name)}"


def _safe(text: str) -> str:
    """A name for a file, another one for another text, on file systems too that fold case or Unicode forms."""
    if re.fullmatch(r"[a-z0-9_][a-z0-9_.-]{0,99}", text):
        return text
    plain = re.sub(r"[^a-z0-9_]+", "-", text.lower())[:40]
    return f"{plain}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
