"""`init` in projects that are not the usual ones: what stands is never changed, and what is written holds."""

from __future__ import annotations

import pytest
import yaml

from dinmo_dbt.scaffold.proposal import inline

from .lab import Lab, dbt

pytestmark = pytest.mark.slow


def written(lab: Lab) -> dict[str, str]:
    return {
        str(path.relative_to(lab.root)): path.read_text(encoding="utf-8")
        for path in lab.root.rglob("*.yml")
        if "target" not in path.parts
    }


def test_names_that_yaml_reads_otherwise_are_quoted(lab: Lab) -> None:
    (lab.root / "dinmo.yml").unlink()
    profiles = yaml.safe_load((lab.root / "profiles.yml").read_text(encoding="utf-8"))
    for profile in profiles.values():
        profile["outputs"] |= {"on": profile["outputs"]["dev"], "1.0: x": profile["outputs"]["dev"]}
    (lab.root / "profiles.yml").write_text(yaml.safe_dump(profiles), encoding="utf-8")
    for target in ("on", "1.0: x"):
        ran = lab.run("init", "--yes", "--target", target, "-d", "my crm")
        assert ran.code == 0, ran.all
        made = yaml.safe_load((lab.root / "dinmo.yml").read_text(encoding="utf-8"))
        assert made["destinations"] == {"my crm": {"targets": {target: {"org": "emulator"}}}}
        commented = [line[8:] for line in ran.out.splitlines() if line.startswith("+      # ")]
        assert yaml.safe_load("\n".join(line[1:] for line in commented if line))
        (lab.root / "dinmo.yml").unlink()


def test_a_real_orgs_address_is_judged_before_it_is_written(lab: Lab) -> None:
    before = written(lab)
    ran = lab.run("init", "--target", "dev", "--login-url", "https://acme.my.salesforce.com/", "--yes")
    assert (ran.code, "nothing in it" in ran.err) == (2, True), ran.all
    assert 'login_url: "https://acme.my.salesforce.com"' in ran.err
    (lab.root / "dinmo.yml").unlink()
    assert "DB603" in lab.run("init", "--login-url", "https://acme.example.com", "--yes").err
    assert written(lab) == {name: text for name, text in before.items() if name != "dinmo.yml"}
    ran = lab.run("init", "--login-url", "acme--dev.sandbox.lightning.force.com/lightning/setup/Home", "--yes")
    assert 'login_url: "https://acme--dev.sandbox.my.salesforce.com"\n' in ran.out, ran.all


WORDS = (
    "null", "yes", "no", "on", "off", "true", "y", "~", "1", "1e3", "0755", "1.0e+3", "2026-01-05", "12:30:00", ".inf",
    "2026-01-05 10:00:00", "a b", "a: b", "# x", "it's", "-", "<<", "=", "a\tb", "é",
)  # fmt: skip


def test_columns_that_yaml_reads_otherwise_are_written_so_that_they_are_read(lab: Lab) -> None:
    """What `init` writes passes `validate` and `plan`; without its quotes each is the column, or told by its text."""
    columns = ", ".join(f"""'x' as "{word}" """ for word in WORDS)
    (lab.root / "models" / "odd.sql").write_text(f"select 'a' as odd_id, {columns}\n", encoding="utf-8")
    (lab.root / "models" / "odd.yml").write_text(
        "models:\n  - name: odd\n    columns:\n      - name: odd_id\n        data_tests: [unique, not_null]\n"
    )
    assert dbt(lab.root, "build", "-s", "odd").returncode == 0
    ran = lab.run("init", "odd", "--object", "Odd__c", "--match", "odd_id=Odd_Id__c", "--yes")
    assert ran.code == 0, ran.all
    file = lab.root / "models" / "odd.yml"
    read = yaml.safe_load(file.read_text(encoding="utf-8"))["models"][0]["config"]["meta"]["dinmo"]["activation"]
    named = {**read["fields"]}
    for word in WORDS:
        assert word in named or f"# {inline(word)}: " in file.read_text(encoding="utf-8"), word
    for command in (["validate"], ["validate", "--online"], ["plan"]):
        ran = lab.run(*command, "-s", "odd")
        assert (ran.code, ran.err) == (0, ""), ran.all

    fields = "no: Yes__c, ~: No__c, 0755: On__c, 1.0e+3: Off__c, 1: X1__c, 1e3: Y__c"
    entry = (
        "{name: odd, config: {meta: {dinmo: {key: odd_id, activation: "
        "{destination: crm, object: Odd__c, mode: upsert, match: {odd_id: Odd_Id__c}, fields: {%s}}}}}}"
    )
    file.write_text(f"models: [{entry % fields}]\n", encoding="utf-8")
    ran = lab.run("validate", "-s", "odd")
    told = " ".join(ran.err.split())
    assert (ran.code, told.count("DB111")) == (2, 4), ran.all
    for bare, made in {"no": "false", "~": "null", "0755": "493", "1.0e+3": "1000.0"}.items():
        assert f"YAML reads '{bare}' as '{made}'" in told and f'put the name in quotes: "{bare}"' in told, told
