"""Temporary files of what travels: for their owner alone, without a name, gone with their descriptor."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dinmo_dbt.errors import unwritable


@contextmanager
def scratch_file(folder: Path) -> Iterator[BinaryIO]:
    """An empty file on the disk of `folder`; StateError DB510 when that is full."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise unwritable(folder, error) from error
