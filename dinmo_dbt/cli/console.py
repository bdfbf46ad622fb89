"""What a person or a program sees: lines, JSON, errors, exit codes, and the two signals that end a run."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TextIO

from dinmo_dbt.codes import DEFECT, SYSTEM_REFUSED
from dinmo_dbt.errors import DinmoError, Interrupted, Problem
from dinmo_dbt.text.moments import iso

INTERRUPTED, TERMINATED = 130, 143
# Of several activations the first present of these decides (design: exit codes).
_GREEN, _YELLOW, _RED, _PLAIN = "\033[32m", "\033[33m", "\033[31m", "\033[0m"
_COLOURS = {
    **dict.fromkeys(("OK", "PASS"), _GREEN),
    **dict.fromkeys(("WARN", "UNKNOWN", "SKIP", "ON ITS WAY", "note"), _YELLOW),
    **dict.fromkeys(("ERROR", "REFUSED", "INTERRUPTED"), _RED),
}
_documents: list[dict[str, Any]] = []  # what this command line printed on stdout: one, or none yet
_ORDER = (INTERRUPTED, TERMINATED, 7, 5, 6, 1, 2, 4, 3, 0)


class Terminated(BaseException):
    """SIGTERM: the process is asked to stop; what is journalled is settled by the next run."""


@dataclass
class Console:
    """Where lines go. With `as_json` stdout holds one document and the story goes to stderr."""

    as_json: bool = False
    quiet: bool = False
    log_format: str = "text"
    place: Callable[[str], str] = str  # a problem's place, with the line that it has in its file
    shared: bool = False  # by several threads that tell of one activation each
    # Of this console, whatever another thread does with Python's: while dbt connects, that is stderr.
    out: TextIO = field(default_factory=lambda: sys.stdout)
    _noted: set[Problem] = field(default_factory=set)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _own: threading.local = field(default_factory=threading.local)  # what a thread has to tell at the end

    @property
    def width(self) -> int:
        """Columns of a line: the terminal's, between 80 and 120; the same for every file and pipe."""
        if not self.out.isatty():
            return 98
        return min(max(shutil.get_terminal_size().columns, 80), 120)

    @property
    def for_people(self) -> bool:
        """Whether somebody, and no program, reads along."""
        return not (self.quiet or self.as_json or self.log_format == "json")

    @contextmanager
    def together(self) -> Iterator[None]:
        """While it is shared, what this thread tells is written at the end, with nothing of another's between."""
        if not self.shared:
            yield
            return
        lines: list[tuple[TextIO, str]] = []
        self._own.lines = lines
        try:
            yield
        finally:
            self._own.lines = None
            with self._writing:
                for stream, text in lines:
                    self._put(stream, text)

    def _write(self, stream: TextIO, text: str) -> None:
        lines: list[tuple[TextIO, str]] | None = getattr(self._own, "lines", None)
        if lines is not None:
            lines.append((stream, text))
            return
        with self._writing:
            self._put(stream, text)

    def _put(self, stream: TextIO, text: str) -> None:
        with _named(self.out):
            self.out.flush()  # so that both streams of a terminal or a CI log stay in order
        with _named(stream):
            stream.write(text)
            stream.flush()

    def say(self, line: str = "", word: str = "") -> None:
        """One line of the story; `word`: what it says became of an activation, which has a colour in a terminal."""
        if self.quiet:
            return
        stream = sys.stderr if self.as_json else self.out
        self._write(stream, self._coloured(self._formatted("info", line), word, stream) + "\n")

    def timed(self, line: str, word: str = "") -> None:
        """One line of the story with the time before it, as dbt prints them."""
        self.say(line if self.log_format == "json" else f"{time.strftime('%H:%M:%S')}  {line}", word)

    def answer(self, lines: Iterable[str], word: str = "") -> None:
        """What was asked for, as text."""
        if not self.as_json:
            shown = (self._coloured(_printable(line), word, self.out) for line in lines)
            self._put(self.out, "".join(f"{line}\n" for line in shown))

    def document(self, content: dict[str, Any]) -> None:
        """What was asked for, as the one JSON document."""
        if self.as_json:
            _documents.append(content)
            self._put(self.out, json.dumps(content, indent=2, default=str) + "\n")

    def failure(self, error: DinmoError, label: str = "") -> None:
        """Its problems, and what others said of them where that was asked for."""
        self.problems(error.problems, label)
        for line in error.whole.splitlines():
            self._tell("error", f"  {line}")

    def problems(self, problems: Iterable[Problem], label: str = "") -> None:
        from dinmo_dbt.cli.printed import problem_lines

        for problem in problems:
            placed = problem.at(self.place)
            for number, line in enumerate(problem_lines(placed, label)):
                # What to do next is often a command, which must be copied whole.
                for part in [line] if line.startswith(("  ->", "     ")) else self.fitted(line):
                    self._tell("error", part, problem.code if number == 0 else "")

    def documents(self, problems: Iterable[Problem]) -> list[dict[str, Any]]:
        """Problems as JSON has them."""
        from dinmo_dbt.cli.printed import problem_json

        return [problem_json(problem.at(self.place)) for problem in problems]

    def stopped(self, what: str) -> None:
        """Why a command ends as it does, where the story does not tell."""
        if self.quiet:
            for line in self.fitted(what):
                self._tell("error", line)

    def note(self, problem: Problem) -> None:
        """Something worth knowing that stops nothing."""
        if not self.quiet:
            where = self.place(problem.where)
            text = f"note: {problem.code} {where + ': ' if where else ''}{problem.message}"
            for number, line in enumerate(self.fitted(text + (f" ({problem.hint})" if problem.hint else ""))):
                self._tell("warn", line, "note" if number == 0 else "")

    def note_once(self, problem: Problem) -> None:
        """A note of what lasts: a service looks often."""
        if problem not in self._noted:
            self._noted.add(problem)
            self.note(problem)

    def fitted(self, line: str) -> Iterable[str]:
        """The line, on as many as the width asks for; whole where a program reads it."""
        from dinmo_dbt.cli.printed import wrapped

        return [line] if self.log_format == "json" else wrapped(line, self.width)

    def _tell(self, level: str, line: str, word: str = "") -> None:
        self._write(sys.stderr, self._coloured(self._formatted(level, line), word, sys.stderr) + "\n")

    def _coloured(self, line: str, word: str, stream: TextIO) -> str:
        """The line with the first such word in its colour: a status in its own, a problem's code in red."""
        if not word or self.as_json or self.log_format == "json" or not has_colours(stream, os.environ):
            return line
        return re.sub(
            rf"(?<![^ ]){re.escape(word)}(?!\w)", lambda m: _COLOURS.get(m[0], _RED) + m[0] + _PLAIN, line, count=1
        )

    def _formatted(self, level: str, line: str) -> str:
        if self.log_format != "json":
            return _printable(line)
        return json.dumps({"info": {"level": level, "msg": line, "ts": iso(time.time())}})


@contextmanager
def _named(stream: TextIO) -> Iterator[None]:
    """What the system says of a stream names it: a full disk is no defect of ours."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = error.filename or stream.name
        raise


def has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether words are coloured there: in a terminal, unless NO_COLOR is set; elsewhere where FORCE_COLOR is."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return environ["FORCE_COLOR"] != "0"
    return stream.isatty() and environ.get("TERM") != "dumb"


def _printable(line: str) -> str:
    """Without what a terminal would obey: a key, a model's name or Salesforce's words may hold an escape sequence."""
    return line if line.isprintable() else "".join(c if c.isprintable() or c == "\n" else " " for c in line)


def worst(codes: Iterable[int]) -> int:
    """The exit code of several activations."""
    present = set(codes)
    return next((code for code in _ORDER if code in present), max(present, default=0))


def guarded(command: Callable[[], Any], failed: Callable[[DinmoError], None] = lambda _: None) -> int:
    """Run a command; its exit code. The one place where every kind of failure ends. `failed` takes an error that
    ended it before it printed its document."""
    _documents.clear()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path need not be text in any encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # Typer's own way of ending at a Ctrl-C
            return _interrupted()
        if stop.code == TERMINATED:
            return _terminated()
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except DinmoError as error:
        Console().failure(error)
        if not _documents:
            failed(error)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except Interrupted as stop:
        return _interrupted() if stop.number == signal.SIGINT else _terminated()
    except Terminated:
        return _terminated()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:  # of no file: nobody foresaw it
            return _defect(error)
        said = str(error.strerror or type(error).__name__)
        refused = DinmoError(SYSTEM_REFUSED, f"the system refused it: {said}", where=os.fsdecode(error.filename))
        Console().failure(refused)
        return refused.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: a defect of ours, reported without values
        return _defect(error)
    return 0


def _interrupted() -> int:
    sys.stderr.write("interrupted; what was sent is journalled and settled by the next run\n")
    return INTERRUPTED


def _terminated() -> int:
    sys.stderr.write("terminated; what was sent is journalled and settled by the next run\n")
    return TERMINATED


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
    raise Terminated


def _defect(error: Exception) -> int:
    """An error nobody foresaw. Its text may hold row values, so only its kind and place are shown."""
    if os.environ.get("DINMO_DEBUG"):
        raise error
    trace = error.__traceback__
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} in {code.co_name}"  # noqa: PTH119
        trace = trace.tb_next
    sys.stderr.write(
        f"{DEFECT}  {type(error).__name__} at {place}\n  a defect of dinmo-dbt, not of your project\n"
        "  -> please report it; DINMO_DEBUG=1 shows the whole traceback, which may hold row values\n"
    )
    return 1
