"""`dinmo-dbt` and `python -m dinmo_dbt`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    hold_streams()
    if sys.platform == "win32":
        sys.stderr.write("dinmo-dbt runs on Linux and macOS; on Windows use WSL (learn.microsoft.com/windows/wsl)\n")
        raise SystemExit(2)
    from dinmo_dbt.cli import run

    raise SystemExit(run(sys.argv[1:]))


def hold_streams() -> None:
    """A standard stream that our caller closed goes nowhere. Left free, its number would be that of the next
    file that is opened, a state's perhaps, and what we or dbt print would be written into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free, so this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123, SIM115


if __name__ == "__main__":
    main()
