"""A secret that was written at the wrong place, or without its quotes, is in no message about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinmo_dbt.config.project import load_project
from dinmo_dbt.errors import DinmoError
from dinmo_dbt.warehouse import connect

SECRET, NUMBER = "S3CRETvalue", "987654321"
AUTH = (
    "destinations:\n  crm:\n    targets:\n      dev:\n        org: https://x.my.salesforce.com\n        auth:\n"
    "          flow: client_credentials\n          client_id: abc\n"
)
KEY = AUTH + "          client_secret: "


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY}{NUMBER}\n",
        f"{KEY}{NUMBER}.5\n",
        f"{KEY}[{SECRET}]\n",
        f"{KEY}{{{SECRET}: 1}}\n",
        f"{KEY}*{SECRET}\n",
        f"{KEY}&{SECRET}\n",
        f"{KEY}!{SECRET}\n",
        f"{KEY}!!{SECRET} x\n",
        f"{KEY}'{SECRET}\n",
        f'{KEY}"\\{SECRET}"\n',
        f"{KEY}@{SECRET}\n",
        f"{KEY}%{SECRET}\n",
        f"{KEY}|{SECRET}\n",
        f"{KEY}{SECRET}: x\n",
        f"{KEY}{{{{ env_var('{SECRET}') }}}}\n",
        f'{KEY}"{{{{ {SECRET} }}}}"\n',
        f"{AUTH}          client_secret:{SECRET}\n",
        f"{AUTH}          {SECRET}\n",
        f"x: &{SECRET} 1\ny: &{SECRET} 2\n",
        AUTH.replace("https://x.", f"https://u:{SECRET}@x."),
        AUTH.replace("salesforce.com", f"salesforce.com/?token={SECRET}"),
        f"warnings: {{channels: [https://hooks.slack.com/{SECRET}]}}\n",
        f"warnings: {{channels: [{NUMBER}]}}\n",
        f"warnings: {{channels: [{{url: {NUMBER}}}]}}\n",
        f"warnings: https://hooks.example/{SECRET}\n",
        f"%YAML {SECRET}\n---\na: 1\n",
        f"{SECRET}\n",
    ],
)
def test_no_message_about_dinmo_yml_holds_what_may_be_a_secret(text: str, tmp_path: Path) -> None:
    (tmp_path / "dinmo.yml").write_text(text)
    try:
        project = load_project(tmp_path, target="dev", env={}, vars={}, offline=True)
        told = "\n".join(map(str, project.problems))  # of a destination's entry, which stops that entry alone
    except DinmoError as error:
        told = str(error)
    assert SECRET not in told and NUMBER not in told
    assert "dinmo.yml" in told, "the place is told"


PORT = "type: postgres, host: h, user: u, dbname: d, schema: s, password: x, port: "


@pytest.mark.parametrize("show_values", [False, True])
@pytest.mark.parametrize(
    "output",
    [
        f"type: postgres, host: h, port: 1, user: u, dbname: d, schema: s, password: [{SECRET}]",
        f"{PORT}{SECRET}",
        f"{PORT}\"'{SECRET}' is a required property\"",
        f"{PORT}\"Env var required but not provided: '{SECRET}'\"",
        f'{PORT}"Could not find adapter type {SECRET}"',
        f"{PORT}\"Required var '{SECRET}' not found\"",
        f"type: duckdb, path: x.duckdb, retries: {SECRET}",
        f"type: duckdb, path: x.duckdb, attach: [{{pth: {SECRET}}}]",
        f"type: duckdb, path: ':memory:', settings: {{nosuch: {SECRET}}}",
        f"type: duckdb, path: ':memory:', settings: {{threads: {SECRET}}}",
        f"type: duckdb, path: ':memory:', config_options: {{threads: {SECRET}}}",
        f"type: duckdb, path: ':memory:', plugins: [{{module: {SECRET}}}]",
    ],
)
def test_no_message_about_a_profile_holds_a_value_of_it(output: str, show_values: bool, tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    (tmp_path / "profiles.yml").write_text(f"shop: {{target: dev, outputs: {{dev: {{{output}}}}}}}\n")
    with pytest.raises(DinmoError) as caught:
        connect(
            tmp_path,
            profiles_dir=None,
            profile=None,
            target=None,
            vars={},
            env={"HOME": str(tmp_path)},
            show_values=show_values,
        )
    assert SECRET.lower() not in f"{caught.value} {caught.value.whole}".lower()
