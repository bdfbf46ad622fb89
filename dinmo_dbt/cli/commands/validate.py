"""validate: whether what is declared is right, by the files, by Salesforce and by the warehouse."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli import examples, options
from dinmo_dbt.cli.console import Console, worst
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import CONSTANT_DOES_NOT_FIT, KEYS_NOT_UNIQUE, VALUES_LEFT_OUT, YAML_MISREAD
from dinmo_dbt.errors import ConfigError, DinmoError, Problem

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.activation import Activation
    from dinmo_dbt.rows.mapping import Mapping


def validate(
    flags: Flags,
    online: Annotated[
        bool, typer.Option("--online", help="Check against Salesforce's describe and the warehouse's relations, too.")
    ] = False,
    data: Annotated[
        bool, typer.Option("--data", help="With it, read the rows: keys that repeat, values that no field can take.")
    ] = False,
    no_parse: options.NoParse = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check every activation; report all problems in one go.

    Offline nothing but files is read. With --online each object or field that Salesforce lacks, or the user may not
    write, is named with the place in Setup that creates or opens it, each column that the relation lacks or whose type
    does not fit, and each condition that the warehouse refuses; each channel's URL is read, without sending. --data
    reads every row once, and counts those that a sync would stop at or leave out.

    \b
    Examples:
      dinmo-dbt validate
      dinmo-dbt validate --online --target prod
      dinmo-dbt validate --data -s customers      reads the model's rows
    """
    from dinmo_dbt.artifacts.declared import at_most
    from dinmo_dbt.cli import printed

    console = Console(as_json, quiet)
    found, online = FoundProblems(), online or data
    with Session(flags, console, offline=not online) as session:
        if not no_parse:
            session.parse_if_changed()
        found.add([session.unparsed] if session.unparsed else [])
        count = _judge(session, found, online=online, data=data)
    problems = at_most(found.problems)
    if problems:
        console.problems(problems)
    else:
        against = "offline and against Salesforce" if online else "offline; --online checks against Salesforce"
        console.answer([f"{printed.count(count, 'activation')} valid ({against})"])
    console.document(printed.document("validate", valid=not problems, problems=console.documents(problems)))
    raise typer.Exit(worst([0, *found.codes]))


@dataclass
class FoundProblems:
    """Problems of every layer, in one go: what one of them can't tell does not keep the others from it."""

    problems: list[Problem] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def add(self, problems: Iterable[Problem], code: int = ConfigError.exit_code) -> None:
        found = list(problems)
        self.problems += found
        self.codes += [code] if found else []

    @contextlib.contextmanager
    def layer(self) -> Iterator[None]:
        try:
            yield
        except DinmoError as error:
            self.add(error.problems, error.exit_code)


def _judge(session: Session, found: FoundProblems, *, online: bool, data: bool) -> int:
    """Find what is wrong with dinmo.yml and with the selected activations; how many of these are right."""
    from dinmo_dbt.config import sharing

    chosen: tuple[Activation, ...] = ()
    with found.layer():
        found.add(session.project.problems)
        found.add(session.project.shared_orgs)
    with found.layer():
        session.say_notes(of_the_manifest=not online)
        found.add(session.wrong_problems)
    with contextlib.suppress(DinmoError):  # reported right before
        chosen = session.chosen
    looked_at = chosen
    if online:
        with contextlib.suppress(DinmoError):
            looked_at = (*chosen, *_nearly(session))
        for name in sorted({each.destination for each in looked_at}):
            if not session.project.problems_with(name):  # reported right before
                with found.layer():
                    session.destination(name)
    if chosen:
        names = {each.name for each in chosen}
        places = {each.meta_path for each in chosen}
        found.add(problem for problem in session.removals if problem.where in places)
        for note in sharing.same_fields(session.declared.activations, session.org_of, among=names):
            session.console.note(note)
    if online:
        _judge_online(session, looked_at, found, data=data)
    return len(chosen)


def _nearly(session: Session) -> list[Activation]:
    """What is wrong by itself, without that: the org and the warehouse may have more to say of it."""
    return [each.nearly for each in session.left if each.is_wrong and each.nearly]


def _judge_online(session: Session, chosen: tuple[Activation, ...], found: FoundProblems, *, data: bool) -> None:
    from dinmo_dbt.plan.plan import reading
    from dinmo_dbt.rows.columns import unread

    reached = []
    for activation in chosen:
        with contextlib.suppress(DinmoError):  # reported when its org was logged in to
            session.destination(activation.destination)
            reached.append(activation)
    found.add(_shared(session, reached))
    for activation in reached:
        with found.layer():
            state = session.state.view(session.destination(activation.destination).org_id, activation)
            session.say_left_behind(activation, state)
    is_readable = False
    if chosen:
        with found.layer():
            session.check_target(allow_mismatch=False)
            is_readable = True
    for activation in chosen:
        relation = None
        if is_readable:
            with found.layer(), reading(activation, by_condition=False):
                relation = session.source.schema(activation.model.relation_name)
        if relation is not None and activation.where:
            names = relation.names[:1]
            with found.layer(), reading(activation), contextlib.closing(_rows(session, activation, names)) as rows:
                next(rows, None)
        is_described = False
        if activation in reached:
            with found.layer():
                problems = _against_describe(session, activation, relation, data=data)
                found.add(problem for problem in problems if not _is_misread(problem, found.problems))
                is_described = True
        if relation is not None and not is_described:
            found.add(unread(activation, relation))
    with contextlib.suppress(ConfigError):  # of dinmo.yml, reported before
        found.add(_channels(session))


def _is_misread(problem: Problem, reported: Sequence[Problem]) -> bool:
    """Whether it is of a constant whose number YAML misread, which was found in the file's own text already."""

    way = problem.where.partition(": ")[2]
    return problem.code == CONSTANT_DOES_NOT_FIT and any(
        each.code == YAML_MISREAD and each.where.endswith(way) for each in reported
    )


def _rows(session: Session, activation: Activation, columns: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
    yield from session.source.read(activation.model.relation_name, columns, activation.where)


def _against_describe(
    session: Session, activation: Activation, relation: pa.Schema | None, *, data: bool
) -> tuple[Problem, ...]:
    """What Salesforce says of the object and its fields, and how the relation's columns and their types fit it."""
    from dinmo_dbt.rows.resolve import object_of, resolve

    destination = session.destination(activation.destination)
    try:
        schema = object_of(activation, destination.describe)
    except DinmoError as error:
        error.put(lambda place: place or session.place_of(activation.destination))
        raise
    mapping, problems = resolve(activation, schema, destination.describe, relation)
    if data and mapping is not None and relation is not None:
        for note in _in_the_data(session, activation, mapping):
            session.console.note(note)
    return problems


def _in_the_data(session: Session, activation: Activation, mapping: Mapping) -> Iterator[Problem]:
    """Keys that identify no row, and values that their fields can't take, with how many rows have them."""
    from collections import Counter

    import pyarrow.compute as pc

    from dinmo_dbt.cli import printed
    from dinmo_dbt.cli.drawing import scan_spool
    from dinmo_dbt.rows.changes import Aside
    from dinmo_dbt.rows.compare import between
    from dinmo_dbt.rows.reasons import Reason, why_unfit

    state = session.state.view(session.destination(activation.destination).org_id, activation)
    with scan_spool(session) as spool:
        rows = session.source.read(activation.model.relation_name, mapping.sources, activation.where)
        scanned = between(rows, mapping, state.snapshot, spool)
    hint = "a sync would stop: mend the model, or choose another key"
    for refusal in scanned.refusals:
        yield Problem(KEYS_NOT_UNIQUE, refusal.message, activation.model.relation_name, hint)
    shown = examples.found(session, activation, mapping, scanned.refusals)
    session.console.answer(f"  {line}" for line in examples.lines(shown))
    invalid = scanned.aside.filter(pc.equal(scanned.aside["why"], Aside.INVALID.value))
    reasons = Counter(zip(invalid["reason"].to_pylist(), invalid["column"].to_pylist(), strict=True))
    for (reason, column), number in sorted(reasons.items(), key=str):
        message = (
            f"{printed.count(number, 'row')} of {scanned.read:,} would be left out: {Reason(reason).code} [{column}]"
        )
        why = why_unfit(Reason(reason), mapping.field_of.get(column or ""), scanned.longest.get(column or "", 0))
        yield Problem(VALUES_LEFT_OUT, message, activation.model.relation_name, why)


def _shared(session: Session, activations: Iterable[Activation]) -> list[Problem]:
    """Orgs that another dbt target's state is of, each target once."""
    from dinmo_dbt.errors import StateError

    found: dict[str, Problem] = {}
    for activation in activations:
        org_id = session.destination(activation.destination).org_id
        try:
            session.state.view(org_id, activation).refuse_shared(session.project.may_share, session.project.places)
        except StateError as error:
            found.setdefault(str(error.problems[0]), error.problems[0])
    return list(found.values())


def _channels(session: Session) -> list[Problem]:
    from dinmo_dbt import channels

    found = [channels.check(channel).problem for channel in session.project.channels]
    return [problem for problem in found if problem]
