"""A few mutants of each module, always the same; `make mutants` has all of them."""

import ast
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_few_mutants_of_each_module_are_noticed():
    command = [sys.executable, "-m", "mutants", "--sample", "4"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if "noticed" in line] == [*mutants.MODULES]


def test_what_is_changed_in_a_module():
    """One place each, by a name of its own, and nothing that does not run."""
    source = '''"""Words."""
import a
@b(1)
def f(x: Literal["c"] = 0) -> "d":
    """More words."""
    assert x == 1
    if not 0 < x <= 2 and pc.any(x):
        g("e")
    return [y + 1 for y in x if y] if x else b"h" + 1.5
'''
    made = mutants.mutants(source)
    assert len({each.told for each in made}) == len(made)
    plain = ast.unparse(ast.parse(source)).splitlines()
    changed = []
    for each in made:
        lines = each.of(source).splitlines()
        assert len(lines) == len(plain)
        changed += [new.strip() for old, new in zip(plain, lines, strict=True) if new != old]
    assert sorted(changed) == sorted(
        [
            "def f(x: Literal['c']=1) -> 'd':",
            "if not (not 0 < x <= 2 and pc.any(x)):",
            "if not 0 < x <= 2 or pc.any(x):",
            "if 0 < x <= 2 and pc.any(x):",
            "if not 0 <= x <= 2 and pc.any(x):",
            "if not 0 < x < 2 and pc.any(x):",
            "if not 1 < x <= 2 and pc.any(x):",
            "if not 0 < x <= 3 and pc.any(x):",
            "if not 0 < x <= 2 and pc.all(x):",
            "pass",
            "g('XXeXX')",
            "return b'h' + 1.5 if x else [y + 1 for y in x if y]",
            "return [y - 1 for y in x if y] if x else b'h' + 1.5",
            "return [y + 2 for y in x if y] if x else b'h' + 1.5",
            "return [y + 1 for y in x if not y] if x else b'h' + 1.5",
            "return [y + 1 for y in x if y] if x else b'h' - 1.5",
            "return [y + 1 for y in x if y] if x else b'?' + 1.5",
            "return [y + 1 for y in x if y] if x else b'h' + 3.0",
        ]
    )
