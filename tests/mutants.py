"""Change our code in one place at a time, and see whether its tests notice: how much of it they hold.

    python -m mutants                    every module of `MODULES`; `make mutants`
    python -m mutants rowhash --sample 40

A mutant is the module with one operator, comparison, number, word or condition changed, or one statement left out, in a
copy of the package; its tests are run against it until the first fails. One that ends none of them within its time is
noticed too. `survivors.yml` beside this file says of each that may survive why.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
SCORE_MIN = 0.90
TIMES = 4  # as long as the tests take on the code as it is, and some seconds more

# The module, and the tests that are to hold it: as few as do, because each is run for each mutant.
MODULES: dict[str, tuple[str, ...]] = {
    "rowhash": ("tests/test_rowhash.py",),
    "values": ("tests/test_values.py",),
}


@dataclass(frozen=True)
class Mutant:
    """`line`, and what becomes of it: the name by which a survivor is excused."""

    line: int
    change: str
    _node: int
    _which: int

    def of(self, source: str) -> str:
        tree = ast.parse(source)
        node = next(node for number, node in enumerate(_nodes(tree)) if number == self._node)
        _, change = list(changes(node))[self._which]
        return ast.unparse(ast.fix_missing_locations(_Replaced(node, change).visit(tree)))


_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """What may be done to one node, each with its name."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _BINARY:
            other = _BINARY[type(op)]
            yield f"{type(op).__name__} to {other.__name__}", lambda found: _with(found, op=other())
            if isinstance(node, ast.AugAssign):
                yield "statement left out", lambda _: ast.Pass()
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            swapped = _COMPARISONS[type(op)]
            yield f"{type(op).__name__} to {swapped.__name__}", lambda found: _with(found, ops=[swapped()])
        case ast.BoolOp(op=both):
            turned: ast.boolop = ast.Or() if isinstance(both, ast.And) else ast.And()
            yield f"{type(both).__name__} to {type(turned).__name__}", lambda found: _with(found, op=turned)
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield "sign left out", lambda _: copy.deepcopy(operand)
        case ast.Constant(value=bool(flag)):
            yield f"{flag} to {not flag}", lambda found: _with(found, value=not flag)
        case ast.Constant(value=int(number)):
            yield f"{number} to {number + 1}", lambda found: _with(found, value=number + 1)
        case ast.Constant(value=str(text)) if text:
            yield f"{text!r} to another text", lambda found: _with(found, value=text + "?")
        case ast.IfExp(body=body, orelse=orelse):
            yield "the other choice", lambda found: _with(found, body=orelse, orelse=body)
        case ast.If(test=test) | ast.While(test=test):
            negated = ast.UnaryOp(ast.Not(), test)
            yield "condition turned", lambda found: _with(found, test=negated)
        case ast.Expr(value=ast.Call()):
            yield "statement left out", lambda _: ast.Pass()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class _Replaced(ast.NodeTransformer):
    def __init__(self, place: ast.AST, change: Callable[[ast.AST], ast.AST]) -> None:
        self._place, self._change = place, change

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self._change(node), node) if node is self._place else self.generic_visit(node)


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module. Docstrings, types, assertions and imports are no code."""
    return [
        Mutant(getattr(node, "lineno", 0), name, number, each)
        for number, node in enumerate(_nodes(ast.parse(source)))
        for each, (name, _) in enumerate(changes(node))
    ]


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run, in order."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop(0)
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns") or isinstance(node, ast.Assert | ast.Import | ast.ImportFrom):
                continue
            listed = value if isinstance(value, list) else [value]
            children = [child for child in listed if isinstance(child, ast.AST)]
            todo += [child for child in children if not _is_text(child)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def survives(module: str, mutant: Mutant, tests: tuple[str, ...], within: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "dinmo_dbt", folder / "dinmo_dbt", ignore=shutil.ignore_patterns("__pycache__"))
        path = folder / "dinmo_dbt" / f"{module}.py"
        path.write_text(mutant.of(path.read_text(encoding="utf-8")), encoding="utf-8")
        return run(folder, tests, within)


def run(folder: Path, tests: tuple[str, ...], within: float | None) -> bool:
    """Whether the tests pass with the package in that folder."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, timeout=within, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def excused() -> dict[str, dict[str, str]]:
    """By module: the text of a line and the change to it, and why a mutant of it may survive."""
    return yaml.safe_load((HERE / "survivors.yml").read_text(encoding="utf-8")) or {}


def judge(module: str, sample: int, jobs: int) -> bool:
    """Whether enough of the module's mutants are noticed; told as it goes."""
    source, tests = (ROOT / "dinmo_dbt" / f"{module}.py").read_text(encoding="utf-8"), MODULES[module]
    assert run(ROOT, tests, None), f"the tests of {module} fail without any mutant"
    began = os.times()
    run(ROOT, tests, None)
    took = os.times().elapsed - began.elapsed
    every = mutants(source)
    chosen = random.Random(0).sample(every, sample) if sample and sample < len(every) else every
    with ThreadPoolExecutor(jobs) as pool:
        alive = list(pool.map(lambda mutant: survives(module, mutant, tests, TIMES * took + 20), chosen))
    lines, reasons = source.splitlines(), excused().get(module, {})
    unexcused = 0
    for mutant, lives in zip(chosen, alive, strict=True):
        if lives:
            told = f"{lines[mutant.line - 1].strip()}: {mutant.change}"
            reason = reasons.get(told, "")
            unexcused += not reason
            print(f"  line {mutant.line}  {told}  {reason and f'({reason})'}")
    score = 1 - sum(alive) / len(chosen)
    print(f"{module}: {len(chosen):,} of {len(every):,} mutants, {sum(alive)} survive, {score:.1%} noticed", flush=True)
    return score >= SCORE_MIN and not unexcused


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants of each, always the same; all of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    held = [judge(module, given.sample, given.jobs) for module in given.modules or MODULES]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
