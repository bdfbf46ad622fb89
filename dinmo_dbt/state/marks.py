"""High-water marks: the newest serial of each activation's state this user has seen, kept outside the state itself.

An older copy that was put back looks whole; only something that was not put back with it can tell. Best effort: where
they can't be written there are none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dinmo_dbt.state.files import write_note


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks of one user. Without a folder there are none."""

    folder: Path | None = None

    def get(self, lineage: str, org_id: str, name: str) -> int:
        """The newest serial seen; 0 if none was, or it can't be read."""
        if self.folder is None:
            return 0
        try:
            text = self._path(self.folder, lineage, org_id, name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return 0
        return int(text) if text.isdecimal() else 0

    def raise_to(self, lineage: str, org_id: str, name: str, serial: int) -> None:
        if self.folder is None:
            return
        path = self._path(self.folder, lineage, org_id, name)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_note(path, str(serial))

    @staticmethod
    def _path(folder: Path, lineage: str, org_id: str, name: str) -> Path:
        return folder / lineage / f"{org_id}-{name}"
