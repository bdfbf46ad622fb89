"""Security rules about the code and its settings; those about what a command does are in e2e/test_security.py."""

from __future__ import annotations

import ast
import copy
import json
import logging
import re
import ssl
import sys
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest
import typer.main
from config_cases import told
from test_cli import commands
from test_project import ENV, load, prod

from dinmo_dbt.cli.app import app
from dinmo_dbt.config import template
from dinmo_dbt.config.declaration import looks_secret
from dinmo_dbt.config.dinmo_yml import AuthSpec, TargetSpec
from dinmo_dbt.errors import ConfigError
from dinmo_dbt.org import Secret
from dinmo_dbt.salesforce import attempt

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "dinmo_dbt").rglob("*.py"))


def test_no_flag_takes_a_secret() -> None:
    root: Any = typer.main.get_command(app())
    for words in commands():
        command = root
        for word in words:
            command = command.commands[word]
        names = [name for parameter in command.params for name in (*parameter.opts, parameter.name or "")]
        assert not [name for name in names if looks_secret(name.lstrip("-"))], words


def test_a_secret_shows_itself_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("hunter2")
    shown = [repr(secret), str(secret), f"{secret}", "%s %r" % (secret, secret), repr([secret])]  # noqa: UP031
    shown += [json.dumps({"secret": secret}, default=str), repr(copy.deepcopy(secret))]
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert not hasattr(secret, "__dict__")
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown.append("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))
        logging.getLogger("x").exception("with %s", secret)
    shown.append(caplog.text)
    assert "hunter2" not in "".join(line for text in shown for line in text.splitlines() if 'Secret("' not in line)


def test_nothing_turns_the_verification_of_tls_off(tmp_path: Path) -> None:
    for path in PACKAGE:
        if "emulator" not in path.parts:
            # A file of authorities takes the place of the usual ones, never of the verification.
            text = path.read_text(encoding="utf-8").replace("session.verify = ca_file or True", "")
            assert not re.search(r"verify\s*=|CERT_NONE|check_hostname|_create_unverified|InsecureRequest", text), path
    for spec in (TargetSpec, AuthSpec):
        assert not [name for name in spec.model_fields if re.search(r"verify|insecure|tls|ssl|cert", name)]
    for key in ("verify_ssl", "verify", "insecure", "tls"):
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, prod(f"        org: emulator\n        {key}: false\n"))
        assert "DB110" in told(raised.value)
    session = attempt.plain_session(trust_env=False)
    assert session.verify is True and session.trust_env is False
    import urllib3.util.ssl_

    assert urllib3.util.ssl_.create_urllib3_context().minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ env_var.__globals__ }}",
        "{{ env_var('ID').__class__ }}",
        "{{ env_var('ID')|attr('__class__') }}",
        "{{ env_var('ID')['__class__'] }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__ }}",
        "{{ namespace(a=1) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 'a' ~ 'b' }}",
        "{{ range(1000000000)|list }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for a in range(1000000000) %}{% for b in range(1000000000) %}x{% endfor %}{% endfor %}",
        "{% set x = env_var('ID') %}{{ x }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{ env_var(var('x')) }}",
        "{{ env_var(*['ID']) }}",
        "{{ env_var('ID', **{}) }}",
        "{{ env_var('ID', default=lipsum) }}",
        "{{ env_var }}",
        "{{ (env_var)('ID')('x') }}",
        "{{" * 3_000,
        "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
        "{{ env_var('ID') }}" * 1_000,
    ],
)
def test_a_template_does_no_more_than_its_two_functions(text: str) -> None:
    """Refused on its tree, before anything of it runs: so no loop needs a time limit."""
    with pytest.raises(template.NotAllowed):
        template.check(text)
    with pytest.raises(template.NotAllowed):
        template.render(text, env=ENV, vars={"x": "ID"})


def test_no_delete_is_a_hard_one() -> None:
    for path in PACKAGE:
        if "emulator" not in path.parts:
            assert "hardDelete" not in path.read_text(encoding="utf-8"), path


def test_the_emulator_listens_on_loopback_alone() -> None:
    server = (ROOT / "dinmo_dbt/emulator/web/server.py").read_text(encoding="utf-8")
    assert "127.0.0.1" in server and "0.0.0.0" not in server
    root: Any = typer.main.get_command(app())
    serve = root.commands["emulator"].commands["serve"]
    assert not [
        name for parameter in serve.params for name in parameter.opts if name in ("--host", "--bind", "--address")
    ]


# The import's name where it is not the package's.
IMPORTED = {
    "yaml": "pyyaml", "jwt": "pyjwt", "simple_salesforce": "simple-salesforce", "dbt": "dbt-core",
    "dbt_common": "dbt-core", "pydantic_core": "pydantic", "urllib3": "requests", "psycopg2": "dbt-postgres",
    "duckdb": "dbt-duckdb", "click": "typer", "cryptography": "pyjwt", "google": "dbt-bigquery", "pyspark": "dbt-spark",
}  # fmt: skip


@pytest.mark.slow
def test_only_declared_packages_are_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    given = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared = {re.split(r"[\[<>=]", one)[0].lower() for one in given}
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {each.split(".")[0] for each in names} - set(sys.stdlib_module_names) - {"dinmo_dbt"}:
                assert IMPORTED.get(name, name.lower()) in declared, f"{path}: {name}"
