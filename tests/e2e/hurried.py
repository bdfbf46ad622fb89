"""dinmo-dbt in a process whose `serve` looks more often: `python hurried.py WATCH_S LOOK_S AGAIN_S ARGUMENT...`."""

from __future__ import annotations

import sys

from dinmo_dbt.__main__ import main
from dinmo_dbt.cli import service as serving

serving.WATCH_S, serving.LOOK_S, serving.AGAIN_S = (float(sys.argv.pop(1)) for _ in range(3))
main()
