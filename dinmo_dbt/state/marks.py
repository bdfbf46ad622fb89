"""What this user has seen of a state, kept outside of it: the newest serial of each activation, and what was reported
of a state that can't be used.

An older copy that was put back looks whole; only something that was not put back with it can tell. Best effort: where
they can't be written there are none.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dinmo_dbt.durable import read_file
from dinmo_dbt.state.files import write_note
from dinmo_dbt.state.state_id import StateId


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks of one user. Without a folder there are none."""

    folder: Path | None = None

    def get(self, lineage: str, own: StateId) -> int:
        """The newest serial seen; 0 if none was, or it can't be read."""
        if self.folder is None:
            return 0
        try:
            text = read_file(self._path(self.folder, lineage, own)).decode("ascii").strip()
        except (OSError, ValueError):
            return 0
        return int(text) if text.isdecimal() else 0

    def raise_to(self, lineage: str, own: StateId, serial: int) -> None:
        if self.folder is None:
            return
        path = self._path(self.folder, lineage, own)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_note(path, str(serial))

    def reported(self, place: str) -> str:
        """What was reported of an unusable state at that place; '' if nothing was, or it is over."""
        try:
            return read_file(self._report(place)).decode() if self.folder else ""
        except (OSError, ValueError):
            return ""

    def note_reported(self, place: str, text: str) -> None:
        """'' once it is over. Without a folder nothing is noted."""
        if self.folder is None:
            return
        with suppress(OSError):
            if not text:
                self._report(place).unlink(missing_ok=True)
                return
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_note(self._report(place), text)

    def _report(self, place: str) -> Path:
        assert self.folder is not None
        return self.folder / f"reported-{hashlib.sha256(place.encode()).hexdigest()[:24]}"

    @staticmethod
    def _path(folder: Path, lineage: str, own: StateId) -> Path:
        return folder / lineage / own.file_name
