"""serve: what is due is run as it becomes due, until stopped."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Annotated

import typer

from dinmo_dbt.cli import dbt_cloud_job, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.service import Service
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.codes import HALF_OF_CLOUD_FLAGS
from dinmo_dbt.errors import Interrupted, UsageError


def serve(
    flags: Flags,
    host: Annotated[str, typer.Option("--host", help="Where the health endpoint listens.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0: a free one, which is said.")
    ] = 8091,
    dbt_cloud: Annotated[
        bool, typer.Option("--dbt-cloud", help="Take dbt Cloud's webhooks at /dbt-cloud, and sync what a run built.")
    ] = False,
    job: Annotated[int | None, typer.Option("--dbt-cloud-job", min=1, help="The job whose runs are synced.")] = None,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = options.Log.TEXT,
) -> None:
    """Run activations as they become due, until stopped.

    GET /health tells whether it is well. A run that was missed while it was down is run once, and said. SIGTERM stops
    it within seconds: what was sent is journalled, and the next start goes on. One process serves a dbt target.

    \b
    Examples:
      dinmo-dbt serve --target prod
      dinmo-dbt serve --target prod --host 0.0.0.0 --port 8091 --dbt-cloud --dbt-cloud-job 123
    """
    from dinmo_dbt.cli.endpoint import listening  # asyncio

    if (job is None) == dbt_cloud:
        hint = "dinmo-dbt serve --dbt-cloud --dbt-cloud-job 123"
        raise UsageError(
            HALF_OF_CLOUD_FLAGS, "--dbt-cloud and --dbt-cloud-job are given together, or neither", hint=hint
        )
    console = Console(False, quiet, log_format)
    with Stop() as stop, ExitStack() as stack:
        service = Service(flags, console, stop, dbt_cloud_job.following(job, None, wait=False))
        stack.enter_context(service.alone())
        app = service.app(dbt_cloud=dbt_cloud)
        url = stack.enter_context(listening(host, port, app))
        console.timed(f"serving dbt target {service.health.target} at {url}, health at {url}/health")
        with suppress(Interrupted):
            service.run()
        console.timed("stopped as asked")
        raise typer.Exit(128 + stop.number if stop.number == 2 else 0)
