"""Result files that are wrong: shuffled, cut, rows too many or too few, odd headers and errors."""

from __future__ import annotations

import random

from dinmo_dbt.emulator.faults.armed import Fired
from dinmo_dbt.emulator.faults.draw import draw

_MARKS = b",\t;|^`"
_SHARE = 0.1


def altered(hit: Fired, data: bytes) -> bytes:
    """A CSV file as the fault leaves it. Rows are kept to the byte but where the fault is about them."""
    fault = hit.fault
    header, rows = _split(data)
    share = _SHARE if fault.share is None else fault.share
    match fault.kind:
        case "results_shuffled":
            random.Random(int(draw(*hit.key, "shuffle") * (1 << 53))).shuffle(rows)
        case "results_cut":
            rows = rows[: len(rows) // 2 if fault.row is None else fault.row]
        case "results_cut_bytes":
            return data[: len(data) // 2 if fault.at is None else fault.at]
        case "results_repeated":
            rows = [again for n, row in enumerate(rows) for again in [row] * (1 + (draw(*hit.key, n) < share))]
        case "results_missing":
            rows = [row for n, row in enumerate(rows) if draw(*hit.key, n) >= share]
        case "results_error_newline" if b"sf__Error" in header:
            rows = [row.replace(b":", b":\n", 1) for row in rows]
        case "results_header_case":
            header = header.lower().replace(b"sf__id", b"sf__Id").replace(b"sf__created", b"sf__Created")
            header = header.replace(b"sf__error", b"sf__Error")
        case "results_extra_column":
            mark = bytes([next((b for b in header if b in _MARKS), _MARKS[0])])
            header = _appended(header, mark + b"Unexpected__c")
            rows = [_appended(row, mark + b'"x"') for row in rows]
    return header + b"".join(rows)


def _split(data: bytes) -> tuple[bytes, list[bytes]]:
    """The header line and the rows, each with its line end; a newline in quotes ends no row."""
    parts: list[bytes] = []
    pending = b""
    for line in _lines(data):
        pending += line
        if pending.count(b'"') % 2 == 0:
            parts.append(pending)
            pending = b""
    if pending:
        parts.append(pending)
    return (parts[0], parts[1:]) if parts else (b"", [])


def _lines(data: bytes) -> list[bytes]:
    """Lines with their ends; bytes have more line ends than CSV knows, so no `splitlines`."""
    *whole, tail = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([tail] if tail else [])


def _appended(line: bytes, text: bytes) -> bytes:
    body = line.rstrip(b"\r\n")
    return body + text + line[len(body) :]
