"""Change our code in one place at a time, and see whether its tests notice: how much of it they hold.

    python -m mutants                    every module of `MODULES`; `make mutants`
    python -m mutants rowhash --sample 40

A mutant is a module with one operator, comparison, number, word, condition or choice changed, or one statement left
out. Docstrings, types, decorators, assertions and imports are no code. Each mutant meets the tests of its module in a
process of its own, forked from one that has loaded the libraries: those tests that run the changed function, quick ones
and those that noticed the last few mutants first, until one fails. One that uses far more processor time than the code
as it is, or more memory, is noticed too. Chance is the same each time, and Hypothesis looks for no shorter example.
`survivors.yml` beside this file says of each mutant that may survive why.
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
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import hypothesis
import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
SCORE_MIN = 0.90
# The processor time that a mutant's test has: so often what it takes on the code as it is, and more. And its loading.
TIMES, MORE_S, LOADING_S = 4, 0.5, 10
MEMORY_MAX = 8 * 2**30
NOTICED, BROKEN = 1, 70  # how a process of tests ends, besides 0

# The module, and the tests that are to hold it: as few as do, and none that starts a process of its
# own. Those that keep files are left out: these modules know of none.
MODULES: dict[str, tuple[str, ...]] = {
    "plan.guards": ("tests/test_guards.py",),
    "rows.keys": ("tests/test_guards.py", "tests/rows/test_values.py"),
    "text.masking": ("tests/test_redaction.py",),
    "text.redaction": ("tests/test_redaction.py",),
    "rows.rowhash": ("tests/rows/test_rowhash.py",),
    "rows.arrow": ("tests/rows/test_values.py",),
    "rows.datetimes": ("tests/rows/test_values.py",),
    "rows.forms": ("tests/rows/test_values.py",),
    "rows.numbers": ("tests/rows/test_values.py",),
    "rows.reasons": ("tests/rows/test_values.py",),
    "rows.texts": ("tests/rows/test_values.py",),
    "rows.values": ("tests/rows/test_values.py",),
}


@dataclass(frozen=True)
class Mutant:
    """`told` is the text of its line and what becomes of it: the name by which a survivor is excused. `within`: the
    lines of the function that it is in the body of; where there is none, it counts from the module's loading on."""

    line: int
    told: str
    within: range | None
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
            yield f"{text[:40]!r} to another text", lambda found: _with(found, value=f"XX{text}XX")
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
    tree = ast.parse(source)
    within = {
        node: lines_of for function, lines_of in _functions(tree) for part in function.body for node in ast.walk(part)
    }
    for number, node in enumerate(_nodes(tree)):
        for each, (change, _) in enumerate(changes(node)):
            line = node.ifs[0].lineno if isinstance(node, ast.comprehension) else node.lineno
            told = f"{lines[line - 1].strip()}: {change}"
            seen[told] += 1
            told = told if seen[told] == 1 else f"{told} #{seen[told]}"
            every.append(Mutant(line, told, within.get(node), number, each))
    return every


def _functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, range]]:
    """Functions of the module and methods of its classes, each with its lines."""
    bodies = [tree.body, *(each.body for each in tree.body if isinstance(each, ast.ClassDef))]
    for each in (each for body in bodies for each in body):
        if isinstance(each, ast.FunctionDef):
            first = min(part.lineno for part in (each, *each.decorator_list))
            yield each, range(first, (each.end_lineno or first) + 1)


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
    """The tests of one module: how long each takes, the lines where functions begin that it calls ('': as they are
    loaded), and how much it noticed lately."""

    module: str
    files: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, list[int]] = field(default_factory=dict)
    noticed: dict[str, float] = field(default_factory=dict)

    def able(self, mutant: Mutant) -> list[str]:
        """Those that can notice it, in the order in which they are tried."""
        within = mutant.within
        always = within is None or any(line in within for line in self.calls.get("", ()))
        can = [test for test in self.seconds if always or any(line in within for line in self.calls.get(test, ()))]
        return sorted(can, key=lambda test: self.seconds[test] / (0.05 + self.noticed.get(test, 0.0)))

    def notices(self, test: str) -> None:
        self.noticed = {each: share * 0.9 for each, share in self.noticed.items()}
        self.noticed[test] = self.noticed.get(test, 0.0) + 1.0


@dataclass
class _Run:
    """A plugin of pytest's, in a process of tests: those that are run, in this order; or all, to learn of them."""

    path: str
    seen: Path
    chosen: list[str] | None
    limits: dict[str, float]
    now: str = ""
    began: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, set[int]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        there = {item.nodeid: item for item in items if "tmp_path" not in item.fixturenames}
        unknown = [test for test in there if test not in self.limits]  # all of them, or named by what was changed
        items[:] = [there[test] for test in [*(self.chosen or ()), *unknown] if test in there]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.now, self.began = nodeid, time.process_time()
        if self.chosen is not None:
            signal.setitimer(signal.ITIMER_PROF, TIMES * self.limits.get(nodeid, 1.0) + MORE_S)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] = time.process_time() - self.began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.seen.write_text(report.nodeid)
            os._exit(NOTICED)

    def trace(self, frame: FrameType, _event: str, _arg: object) -> None:
        if frame.f_code.co_filename == self.path:
            self.calls.setdefault(self.now, set()).add(frame.f_code.co_firstlineno)

    def learned(self) -> str:
        ours = (str(ROOT / "dinmo_dbt"), str(HERE))
        files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
        libraries = [name for name, file in files.items() if file and not file.startswith(ours)]
        return json.dumps([self.seconds, {test: [*lines] for test, lines in self.calls.items()}, libraries])


def start(tests: Tests, source: str, folder: Path, chosen: list[str] | None) -> int:
    """A process that runs these tests with `source` in the module's place; its number. In a file of the folder by that
    number stands which test noticed it; or, where all are run, what is learned of them."""
    child = os.fork()
    if child:
        return child
    code = NOTICED  # by the module itself, if it can't be loaded
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        signal.alarm(3600)  # one that waits for nothing uses no processor time
        null = os.open(os.devnull, os.O_RDWR)
        for each in range(3):
            os.dup2(null, each)
        hypothesis.settings.register_profile(
            "mutants", database=None, derandomize=True, deadline=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )  # fmt: skip
        hypothesis.settings.load_profile("mutants")
        run = _Run(path_of(tests.module), folder / str(os.getpid()), chosen, tests.seconds)
        if chosen is None:
            sys.settrace(run.trace)
        else:
            signal.setitimer(signal.ITIMER_PROF, LOADING_S)
        plant(tests.module, source)
        no = [
            f"-pno:{name}"
            for name in ("pace", "cacheprovider", "unraisableexception", "threadexception", "faulthandler")
        ]
        ended = pytest.main(["-q", "--assert=plain", *no, *tests.files], plugins=[run])
        if chosen is None:
            run.seen.write_text(run.learned())
        code = BROKEN if ended == pytest.ExitCode.NO_TESTS_COLLECTED else NOTICED if ended else 0
    finally:
        os._exit(code)


def ended(folder: Path) -> tuple[int, bool, str]:
    """Of the process that ends next: its number, whether every test passed, and what it left."""
    child, status, _ = os.wait3(0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, NOTICED) or code < 0, f"no test was run: {code}"
    left = folder / str(child)
    return child, code == 0, left.read_text() if left.exists() else ""


def learn(tests: Tests, source: str, folder: Path) -> None:
    """What is known of the tests, by running them; what they load is there for every mutant."""
    start(tests, source, folder, None)
    _, passed, told = ended(folder)
    assert passed, f"the tests of {tests.module} fail without any mutant"
    tests.seconds, tests.calls, loaded = json.loads(told)
    start(tests, "", folder, [*tests.seconds])
    assert not ended(folder)[1], f"the tests of {tests.module} pass without it"
    for each in loaded:
        with contextlib.suppress(ImportError):
            importlib.import_module(each)
    gc.freeze()  # else each process's first collection copies all of it


def path_of(module: str) -> str:
    return str(ROOT / "dinmo_dbt" / f"{module.replace('.', '/')}.py")


def plant(module: str, source: str) -> None:
    """Make `source` the module that everything imports from now on in this process."""
    name = f"dinmo_dbt.{module}"
    assert name not in sys.modules, "it must be there first"
    parent, _, own = name.rpartition(".")
    package = importlib.import_module(parent)
    spec = importlib.util.spec_from_file_location(name, path_of(module))
    assert spec is not None
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    exec(compile(source, path_of(module), "exec"), made.__dict__)
    setattr(package, own, made)


def survivors(tests: Tests, source: str, chosen: Collection[Mutant], jobs: int) -> Iterator[Mutant]:
    """Those that the tests do not notice, as they are found."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        learn(tests, source, folder)
        running: dict[int, Mutant] = {}
        for mutant in [*chosen, *[None] * jobs]:
            if running and (mutant is None or len(running) == jobs):
                child, passed, told = ended(folder)
                each = running.pop(child)
                if passed:
                    yield each
                elif told:
                    tests.notices(told)
            if mutant is None:
                continue
            if able := tests.able(mutant):
                running[start(tests, mutant.of(source), folder, able)] = mutant
            else:
                yield mutant


def excused() -> dict[str, dict[str, str]]:
    """By module: the text of a line and the change to it, and why a mutant of it may survive."""
    return yaml.safe_load((HERE / "survivors.yml").read_text(encoding="utf-8")) or {}


def judge(module: str, sample: int, jobs: int) -> bool:
    """Whether enough of the module's mutants are noticed, and each of the others is excused; told as it goes."""
    source = Path(path_of(module)).read_text(encoding="utf-8")
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
