"""`init` in projects that are not the usual ones: what stands is never changed, and what is written holds."""

from __future__ import annotations

import yaml

from .lab import Lab


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
