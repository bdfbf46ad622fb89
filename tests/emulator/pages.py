"""Pages of docs/ as a reader uses them: their tables, and their blocks run one after another in a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "~~ done ~~"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the file it is to be kept in, its text, and what it prints if the page says so."""

    language: str
    file: str
    text: str
    printed: str | None

    @property
    def serves(self) -> bool:
        return "emulator serve" in self.text or "emulator.serve(" in self.text


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows(page: str, columns: int) -> list[list[str]]:
    """The rows of the page's tables that have so many columns, headings left out."""
    lines = text_of(page).splitlines()
    found = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|") or any(at.startswith("|--") for at in (line, following)):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == columns:
            found.append(cells)
    return found


def blocks(page: str) -> list[Block]:
    """The page's blocks in order; a `text` block is what the block before it prints."""
    fences = [m.groups() for m in _FENCE.finditer(text_of(page))]
    following = [*fences[1:], ("", "", "")]
    return [
        Block(language, file or "", text, after[2] if after[0] == "text" else None)
        for (language, file, text), after in zip(fences, following, strict=True)
        if language != "text"
    ]


class Terminal:
    """A bash in a scratch folder. A block that serves an org runs beside it until the next of its kind, or a reset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DINMO_", "DBT_", "REQUESTS_", "NODE_"))}
        self._how: dict[str, Any] = {
            "cwd": folder, "env": {**kept, "PATH": path}, "text": True, "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }  # fmt: skip
        self._bash = subprocess.Popen(["bash", "-euo", "pipefail"], stdin=subprocess.PIPE, **self._how)
        self._server: subprocess.Popen[str] | None = None

    def run(self, block: Block) -> None:
        """Do what the block says, and see that it prints what the page says."""
        if block.file:
            (self.folder / block.file).write_text(block.text)
            return
        if block.serves or "emulator reset" in block.text:
            self.stop()
        printed = self._serve(block) if block.serves else self._typed(self._command(block))
        if block.printed is not None:
            pattern = re.escape(block.printed.strip()).replace(r"\.\.\.", ".*?")
            assert re.fullmatch(pattern, printed.strip()), f"{block.text}\nprinted:\n{printed}\nnot:\n{block.printed}"

    def _command(self, block: Block) -> str:
        if block.language == "sh":
            return block.text
        assert block.language == "python", f"a block in {block.language} that nothing runs"
        (self.folder / "example.py").write_text(block.text)
        return "python example.py"

    def _typed(self, command: str) -> str:
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.write(f"{command.strip()}\necho; echo '{_MARK}'\n")
        self._bash.stdin.flush()
        lines = []
        for line in self._bash.stdout:
            if line.strip() == _MARK:
                return "".join(lines).removesuffix("\n")
            lines.append(line)
        raise AssertionError(f"{command}\nended with {self._bash.wait()}:\n{''.join(lines)}")

    def _serve(self, block: Block) -> str:
        self._server = subprocess.Popen(["bash", "-c", f"exec {self._command(block)}"], **self._how)
        assert self._server.stdout is not None
        lines = [self._server.stdout.readline() for _ in range((block.printed or "\n").count("\n"))]
        assert lines[0], f"{block.text}\nended with {self._server.wait()}"
        return "".join(lines)

    def stop(self) -> None:
        """Ctrl-C."""
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            rest, _ = self._server.communicate(timeout=20)
            assert self._server.returncode in (0, 143), rest
            self._server = None

    def close(self) -> None:
        self.stop()
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.stdout.close()
        self._bash.wait(timeout=20)
