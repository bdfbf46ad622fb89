"""Change our code in one place at a time, and see whether its tests notice: how much of it they hold.

    python -m mutants                    every module of `MODULES`; `make mutants`
    python -m mutants rowhash --sample 40

A mutant is a module with one operator, comparison, number, word, condition or choice changed, or one statement left
out. Docstrings, types, decorators, assertions and imports are no code. Each mutant meets the tests of its module in a
process of its own, forked from one that has loaded the libraries: the quickest test first, until one fails. One that
uses far more processor time than the code as it is, or more memory, is noticed too. Chance is the same each time, and
Hypothesis looks for no shorter example. `survivors.yml` beside this file says of each mutant that may survive why.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import importlib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
SCORE_MIN = 0.90
TIMES, MORE_S = 5, 5  # the processor time a mutant has: so often what the tests take on the code as it is, and more
MEMORY_MAX = 8 * 2**30
NOTICED, BROKEN = 1, 70  # how a process of tests ends, besides 0

# The module, and the tests that are to hold it: as few as do, and none that starts a process of its
# own. Those that keep files are left out: these modules know of none.
MODULES: dict[str, tuple[str, ...]] = {
    "guards": ("tests/test_guards.py",),
    "redaction": ("tests/test_redaction.py",),
    "rowhash": ("tests/test_rowhash.py",),
    "values": ("tests/test_values.py",),
}


@dataclass(frozen=True)
class Mutant:
    """`told` is the text of its line and what becomes of it: the name by which a survivor is excused."""

    line: int
    told: str
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
# What operators are for columns.
_FUNCTIONS = {
    "equal": "not_equal", "not_equal": "equal", "less": "less_equal", "less_equal": "less", "greater": "greater_equal",
    "greater_equal": "greater", "and_": "or_", "or_": "and_", "is_valid": "is_null", "is_null": "is_valid",
    "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min",
    "utf8_lower": "utf8_upper", "rint": "floor", "floor": "ceil",
    "min_element_wise": "max_element_wise", "max_element_wise": "min_element_wise",
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """What may be done to one node, each with its name."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _BINARY:
            other = _BINARY[type(op)]
            yield f"{type(op).__name__} to {other.__name__}", lambda found: _with(found, op=other())
            if isinstance(node, ast.AugAssign):
                yield "statement left out", lambda _: ast.Pass()
        case ast.Compare(ops=ops):
            for number, each in enumerate(ops):
                if swapped := _COMPARISONS.get(type(each)):
                    swaps = [*ops[:number], swapped(), *ops[number + 1 :]]
                    yield f"{type(each).__name__} to {swapped.__name__}", lambda found, ops=swaps: _with(found, ops=ops)
        case ast.BoolOp(op=both):
            turned: ast.boolop = ast.Or() if isinstance(both, ast.And) else ast.And()
            yield f"{type(both).__name__} to {type(turned).__name__}", lambda found: _with(found, op=turned)
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield "sign left out", lambda _: copy.deepcopy(operand)
        case ast.Constant(value=bool(flag)):
            yield f"{flag} to {not flag}", lambda found: _with(found, value=not flag)
        case ast.Constant(value=int(number)):
            yield f"{number} to {number + 1}", lambda found: _with(found, value=number + 1)
        case ast.Constant(value=float(amount)):
            yield f"{amount} to another", lambda found: _with(found, value=amount * 2 or 1.0)
        case ast.Constant(value=str(text)) if text:
            yield f"{text!r} to another text", lambda found: _with(found, value=f"XX{text}XX")
        case ast.Constant(value=bytes(octets)) if octets:
            yield f"{octets!r} to another text", lambda found: _with(found, value=b"?" + octets[1:])
        case ast.Call(func=ast.Attribute(attr=name)) if name in _FUNCTIONS:
            yield (
                f"{name} to {_FUNCTIONS[name]}",
                lambda found: _with(found, func=_with(found.func, attr=_FUNCTIONS[name])),
            )
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            yield (
                f"{name} to {_FUNCTIONS[name]}",
                lambda found: _with(found, func=_with(found.func, id=_FUNCTIONS[name])),
            )
        case ast.IfExp(body=body, orelse=orelse):
            yield "the other choice", lambda found: _with(found, body=orelse, orelse=body)
        case ast.If(test=test) | ast.While(test=test):
            negated = ast.UnaryOp(ast.Not(), test)
            yield "condition turned", lambda found: _with(found, test=negated)
        case ast.comprehension(ifs=[_, *_] as tests):
            none = [ast.UnaryOp(ast.Not(), tests[0]), *tests[1:]]
            yield "condition turned", lambda found: _with(found, ifs=none)
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
    """Every mutant of a module, each by a name of its own."""
    lines, seen, every = source.splitlines(), Counter[str](), []
    for number, node in enumerate(_nodes(ast.parse(source))):
        for each, (change, _) in enumerate(changes(node)):
            line = node.ifs[0].lineno if isinstance(node, ast.comprehension) else node.lineno
            told = f"{lines[line - 1].strip()}: {change}"
            seen[told] += 1
            every.append(Mutant(line, told if seen[told] == 1 else f"{told} #{seen[told]}", number, each))
    return every


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run, in order."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop(0)
        yield node
        for name, value in ast.iter_fields(node):
            declares = name in ("annotation", "returns", "decorator_list")
            if declares or isinstance(node, ast.Assert | ast.Import | ast.ImportFrom):
                continue
            listed = value if isinstance(value, list) else [value]
            children = [child for child in listed if isinstance(child, ast.AST)]
            todo += [child for child in children if not _is_text(child)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@dataclass
class Tests:
    """The tests of one module, and how long each takes: as a plugin of pytest's, too."""

    module: str
    files: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if "tmp_path" not in item.fixturenames]
        items[:] = sorted(kept, key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(NOTICED)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def start(self, source: str, cpu_s: int = 3600, seen: Path | None = None) -> int:
        """A process that runs them with `source` in the module's place; its number. `seen` gets what it learned."""
        child = os.fork()
        if not child:
            code = NOTICED  # by the module itself, if it can't be loaded
            try:
                code = self._run(source, cpu_s)
                if seen:
                    seen.write_text(json.dumps([self.seconds, libraries()]))
            finally:
                os._exit(code)
        return child

    def _run(self, source: str, cpu_s: int) -> int:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        signal.alarm(3600)  # one that waits for nothing uses no processor time
        null = os.open(os.devnull, os.O_RDWR)
        for each in range(3):
            os.dup2(null, each)
        briefly = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", database=None, derandomize=True, phases=briefly, deadline=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )  # fmt: skip
        hypothesis.settings.load_profile("mutants")
        plant(self.module, source)
        no = [f"no:{plugin}" for plugin in ("cacheprovider", "unraisableexception", "threadexception", "faulthandler")]
        options = ["-q", "--assert=plain", *(f"-p{each}" for each in no), *self.files]
        code = pytest.main(options, plugins=[self])
        return BROKEN if code == pytest.ExitCode.NO_TESTS_COLLECTED else NOTICED if code else 0

    def judged(self) -> tuple[int, int]:
        """The number of the process that ended next, and 0 where every test passed in it."""
        child, status, _ = os.wait3(0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, NOTICED) or code < 0, f"the tests of {self.module} were not run: {code}"
        return child, code


def libraries() -> list[str]:
    """What this process has loaded that is not ours."""
    ours = (str(ROOT / "dinmo_dbt"), str(HERE))
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and not file.startswith(ours)]


def plant(module: str, source: str) -> None:
    """Make `source` the module that everything imports from now on in this process."""
    name = f"dinmo_dbt.{module}"
    assert name not in sys.modules, "it must be there first"
    package = importlib.import_module("dinmo_dbt")
    spec = importlib.util.spec_from_file_location(name, ROOT / "dinmo_dbt" / f"{module}.py")
    assert spec is not None
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    exec(compile(source, str(spec.origin), "exec"), made.__dict__)
    setattr(package, module, made)


def survivors(tests: Tests, source: str, chosen: Collection[Mutant], jobs: int) -> Iterator[Mutant]:
    """Those that the tests do not notice, as they are found."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        seen = Path(folder) / "seen.json"
        tests.start(ast.unparse(ast.parse(source)), seen=seen)
        assert tests.judged()[1] == 0, f"the tests of {tests.module} fail without any mutant"
        tests.seconds, loaded = json.loads(seen.read_text())
        tests.start("")
        assert tests.judged()[1] != 0, f"the tests of {tests.module} pass without it"
    for each in loaded:
        with contextlib.suppress(ImportError):
            importlib.import_module(each)
    gc.freeze()  # else each process's first collection copies all of it
    cpu_s = int(TIMES * sum(tests.seconds.values())) + MORE_S
    running: dict[int, Mutant] = {}
    for mutant in [*chosen, *[None] * jobs]:
        if running and (mutant is None or len(running) == jobs):
            child, code = tests.judged()
            ended = running.pop(child)
            if code == 0:
                yield ended
        if mutant is not None:
            running[tests.start(mutant.of(source), cpu_s)] = mutant


def excused() -> dict[str, dict[str, str]]:
    """By module: the text of a line and the change to it, and why a mutant of it may survive."""
    return yaml.safe_load((HERE / "survivors.yml").read_text(encoding="utf-8")) or {}


def judge(module: str, sample: int, jobs: int) -> bool:
    """Whether enough of the module's mutants are noticed, and each of the others is excused; told as it goes."""
    source = (ROOT / "dinmo_dbt" / f"{module}.py").read_text(encoding="utf-8")
    every, reasons = mutants(source), excused().get(module, {})
    chosen = random.Random(0).sample(every, sample) if sample and sample < len(every) else every
    alive = []
    for mutant in survivors(Tests(module, MODULES[module]), source, chosen, jobs):
        alive.append(mutant.told)
        print(f"  line {mutant.line}  {mutant.told}  ({reasons.get(mutant.told, 'NOT EXCUSED')})", flush=True)
    noticed = {mutant.told for mutant in chosen} - set(alive)
    idle = [told for told in reasons if told in noticed or told not in {mutant.told for mutant in every}]
    for told in idle:
        print(f"  excused for nothing: {told}")
    score = 1 - len(alive) / len(chosen)
    print(f"{module}: {len(chosen):,} of {len(every):,} mutants, {len(alive)} survive, {score:.1%} noticed", flush=True)
    whole = len(chosen) == len(every)
    return (score >= SCORE_MIN or not whole) and set(alive) <= set(reasons) and not idle


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants of each, always the same; all of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with contextlib.suppress(KeyboardInterrupt):
        held = [judge(module, given.sample, given.jobs) for module in given.modules or MODULES]
        return int(not all(held))
    return 130


if __name__ == "__main__":
    sys.exit(main())
