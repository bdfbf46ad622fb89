"""Run `dinmo-dbt demo` on a terminal and draw it: `make picture` writes docs/demo.svg.

The picture is shortened, and what differs from run to run (times, ids, ports, folders) is left out or written alike, so
that a renewed picture changes only where the demo's words or counts did.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 108
SAMPLES = 3  # of `plan --show-values`
PICTURE = Path(__file__).with_name("demo.svg")

_ALIKE = (
    (r"\d\d:\d\d:\d\d  ", "09:00:00  "),
    (r" in \d+ hours \d+ minutes and \S+ seconds \(\S+\)", ""),
    (r" in \d+\.\d\ds\]", "]"),
    (r"Done in \d+ s;", "Done;"),
    (r"\S*/dinmo-dbt-demo-\w+", "/tmp/dinmo-dbt-demo"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:8080"),
    (r"\b00D\w{15}\b", "00D000000000001AAA"),
    (r"\b(001|a0\w)\w{4}(\w{8})\w{3}\b", r"\1....\2"),
)


def main() -> int:
    text = recorded([sys.executable, "-m", "dinmo_dbt", "demo"])
    PICTURE.write_text(drawn(shortened(alike(text))), encoding="utf-8", newline="\n")
    return 0


def recorded(command: list[str]) -> str:
    """What a command writes on a terminal of WIDTH columns; its stderr, where progress goes, is left out."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    with tempfile.TemporaryFile() as story:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=story, env=environment
        ) as running:
            os.close(theirs)
            parts = []
            while part := _read(ours):
                parts.append(part)
        os.close(ours)
        if running.returncode:
            story.seek(0)
            sys.exit(b"".join([*parts, story.read()]).decode() + f"\nthe demo failed: exit {running.returncode}")
    return b"".join(parts).decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def alike(text: str) -> str:
    for pattern, written in _ALIKE:
        text = re.sub(pattern, written, text)
    return text


def shortened(text: str) -> list[str]:
    """Without the two whole plans, with a few of the sample rows, and one line per sync."""
    lines: list[str] = []
    skipping, samples = False, 0
    for line in text.splitlines():
        if line.startswith("$ "):
            skipping, samples = line == "$ dinmo-dbt plan", 0
        elif not re.match(r"\s|$|\w+: ", line):
            skipping = False
        if re.match(r"  (update|create) \S+ \(", line):
            samples += 1
            if samples == SAMPLES + 1:
                lines.append("  ...")
        if line.startswith("Where to look next"):
            break
        if " START sync " in line:  # the same line says how it ended
            continue
        if skipping or (samples > SAMPLES and line.startswith("  ")):
            continue
        if line or (lines and lines[-1]):
            lines.append(line)
    return lines


def drawn(lines: list[str]) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        text = Text.from_ansi(line)
        text.truncate(WIDTH, overflow="ellipsis")
        if line.startswith("$ "):
            text.stylize("bold #7ee787")
        console.print(text, no_wrap=True, highlight=False)
    svg = console.export_svg(title="make demo", unique_id="demo")
    # The picture needs nothing from elsewhere: any fixed-width font will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in svg.replace("Fira Code", "ui-monospace, monospace").splitlines()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
