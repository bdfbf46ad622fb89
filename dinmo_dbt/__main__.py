"""`dinmo-dbt` and `python -m dinmo_dbt`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    if sys.platform == "win32":
        sys.stderr.write("dinmo-dbt runs on Linux and macOS; on Windows use WSL (learn.microsoft.com/windows/wsl)\n")
        raise SystemExit(2)
    from dinmo_dbt.cli import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
