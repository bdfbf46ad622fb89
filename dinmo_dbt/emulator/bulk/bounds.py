"""The size limits of an upload. The texts are unverified but for the CSV reader's own (forcedotcom/wsc #182)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.bulk.csvtext import CsvError
from dinmo_dbt.emulator.limits import Limits


def check_header(limits: Limits, header: tuple[str, ...]) -> None:
    length = sum(map(len, header)) + max(len(header) - 1, 0)
    if length > limits.header_characters:
        raise CsvError(f"InvalidBatch : The header row has {length} characters, more than {limits.header_characters}")
    if len(header) > limits.record_fields:
        raise CsvError(f"InvalidBatch : A record has {len(header)} fields, more than {limits.record_fields}")


def check_cells(limits: Limits, texts: list[pa.Array]) -> None:
    """Bytes bound characters from above, so characters are only counted where bytes are too many."""
    longest = [pc.max(pc.binary_length(t)).as_py() or 0 for t in texts]
    for text, width in zip(texts, longest, strict=True):
        if width > limits.field_characters:
            characters = pc.max(pc.utf8_length(text)).as_py()
            if characters > limits.field_characters:
                raise CsvError(f"InvalidBatch : Failed to parse CSV. Exceeded max field size: {characters}")
    if sum(longest) > limits.record_characters:
        total = pc.utf8_length(texts[0])
        for text in texts[1:]:
            total = pc.add(total, pc.utf8_length(text))
        characters = pc.max(total).as_py()
        if characters > limits.record_characters:
            message = f"A record has {characters} characters, more than {limits.record_characters}"
            raise CsvError(f"InvalidBatch : {message}")
