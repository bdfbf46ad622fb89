"""Activation x segment x snapshot x org -> Plan. Writes nothing.

`draw` is the whole read-only path, the same for `plan` and for `sync`; `plan` stops where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import COLUMNS_GONE, EMPTY_SEGMENT, FIRST_SYNC, FULL_INSERT
from dinmo_dbt.destination import Destination
from dinmo_dbt.errors import ConfigError, Problem, StateError
from dinmo_dbt.plan import guards
from dinmo_dbt.plan.batches import batches
from dinmo_dbt.plan.effect import counted_as, effect_of, find_respelled, hold_respelled, holds_respelled
from dinmo_dbt.plan.guards import Ceilings, Moved
from dinmo_dbt.plan.operations import choose_operations, fixed_notes, know_new_from_known
from dinmo_dbt.plan.order import meet_parents
from dinmo_dbt.plan.plan import Arriving, Plan, Source, StateView, reading
from dinmo_dbt.plan.removals import plan_removals
from dinmo_dbt.plan.work import Work
from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import ChangeSet
from dinmo_dbt.rows.compare import between
from dinmo_dbt.rows.forms import text_form, type_name
from dinmo_dbt.rows.key_hashes import key_hash
from dinmo_dbt.rows.key_problems import key_refusal
from dinmo_dbt.rows.mapping import Mapping, from_header
from dinmo_dbt.rows.resolve import object_of, resolve
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.snapshot import Positions, Spool, keys_in_segment

_NONE_RAISED = Ceilings()


def draw(
    activation: Activation,
    source: Source,
    destination: Destination,
    state: StateView,
    spool: Spool,
    *,
    ceilings: Ceilings = _NONE_RAISED,
    arriving: Sequence[Arriving] = (),
    watched: Positions | None = None,
    hash_key: Callable[[pa.Array], Hashes] = key_hash,
) -> Plan:
    """Read the segment, compare it with the snapshot, resolve records: the plan. Raises ConfigError for a mapping that
    does not fit the object, StateError for a snapshot that is another activation's.

    `arriving`: what earlier plans, not executed yet, will have created by then. A sync draws each plan after its
    parents were delivered and passes none. `watched`: positions in the snapshot whose rows, if unchanged, an audit will
    compare.
    """
    schema = object_of(activation, destination.describe)
    with reading(activation, by_condition=False):
        relation = source.schema(activation.model.relation_name)
    mapping, problems = resolve(activation, schema, destination.describe, relation)
    if mapping is None:
        raise ConfigError.of(problems)
    described = mapping.described(schema)
    waits = state.pending.given_up(activation.give_up_after, destination.org_time)
    older, notes = _stored_mappings(activation, mapping, state, relation)
    moved = _moved(mapping, state, relation)
    notes += _retyped(mapping, state, relation)
    inserting = activation.mode is Mode.INSERT
    sources = tuple(dict.fromkeys(name for m in (mapping, *older) for name in m.sources))
    with reading(activation):
        found = between(
            source.read(activation.model.relation_name, sources, activation.where),
            mapping,
            state.snapshot,
            spool,
            older=older,
            pending=waits.released(described),
            resend=ceilings.full and not inserting,
            inserting=inserting,
            ignore_changes=inserting and activation.on_change == "ignore",
            finding=activation.only_finds,
            watched=watched,
            hash_key=hash_key,
        )
    notes += _unjudged(found.unjudged)
    refusal = _model_refusal(activation, state, found) or _guards(activation, state, destination, ceilings)
    work = Work(activation, mapping, schema, destination, state, spool, found, arriving, older, waits)
    work.match_moved = any(mapping.match_moved_since(stored) for stored in older)
    if refusal is None or not found.refusals:
        choose_operations(work)
        know_new_from_known(work)
        meet_parents(work)
        find_respelled(work)
        notes += plan_removals(work, ceilings)
        notes += fixed_notes(work)
    effect = effect_of(work)
    judged = guards.judge(activation, effect, state.day, ceilings, moved)
    if judged.refusal is None and holds_respelled(work, ceilings):
        effect = replace(effect, created=effect.created - len(work.respelled), respelled=len(work.alike))
        hold_respelled(work)
    counts = work.counts()
    if judged.refusal is None and (turned_over := guards.replaced_note(activation, effect, state.day)):
        notes.append(turned_over)
    return Plan(
        activation=activation,
        org_id=destination.org_id,
        serial=state.serial,
        schema=schema,
        mapping=mapping,
        older=older,
        counts=counts,
        batches=tuple(batches(work)),
        left_out=work.left_out(),
        baseline=found.baseline,
        leavers=work.leavers,
        spool=spool,
        changes=found,
        snapshot_flags=state.snapshot.flags,
        record_ids=work.record_ids,
        stored_ids=work.stored_ids,
        parents=work.parents,
        emptied=work.emptied,
        unfinished=work.unfinished,
        known_left_out=found.known_aside + work.known_left_out(),
        is_first=not state.exists,
        awaits_parents=work.awaits_parents,
        refusal=refusal or judged.refusal,
        notes=tuple(notes),
        described=described,
        counted=counted_as(work, judged.passed),
        passed=judged.passed,
        replacing=work.replacing,
        admitted=max(state.admitted, len(state.snapshot.kh) + effect.created),
    )


def _stored_mappings(
    activation: Activation, mapping: Mapping, state: StateView, relation: pa.Schema
) -> tuple[tuple[Mapping, ...], list[str]]:
    """The stored mappings that differ from today's and whose columns the model still has."""
    older, notes = [], []
    for header in state.mappings:
        stored = from_header(header)
        if stored.digest == mapping.digest:
            continue
        gone = sorted(name for name in stored.sources if name not in relation.names)
        columns = [stored.match] if stored.match else []
        unfit = [
            column.source
            for column in (*columns, *stored.columns)
            if column.source in relation.names and values.why_not(relation.field(column.source).type, column.field)
        ]
        if not gone and not unfit:
            older.append(stored)
            continue
        lost = ", ".join(gone + unfit)
        one = len(gone + unfit) == 1
        what = f"{'is' if one else 'are'} gone from the model" if gone else f"changed {'its' if one else 'their'} type"
        if activation.mode is Mode.INSERT:
            raise StateError(
                COLUMNS_GONE,
                f"{'a column that was' if one else 'columns that were'} synced before {what}: {lost}. "
                "Which rows changed can't be known any more, and an insert would make new records of all of them",
                where=activation.meta_path,
                hint=f"bring {'it' if one else 'them'} back for one sync, or take over what Salesforce holds: "
                f"dinmo-dbt state reset {activation.name}, then {activation.adopting}",
            )
        notes.append(f"{lost} {what}: which rows changed can't be known, so known rows are sent again")
    return tuple(older), notes


def _retyped(mapping: Mapping, state: StateView, relation: pa.Schema) -> list[str]:
    """What is said of each column whose type is not the one it had at the last sync."""
    stored = from_header(state.mappings[0]) if state.mappings else mapping
    moved = {name for name, _ in _key_moves(mapping, stored)}, {name for name, _ in _text_moves(stored, relation)}
    notes = []
    for name, before, now in mapping.retyped_since(stored):
        means = [": the key's text changes with it"] if name in moved[0] else []
        means += [": its text changes with it"] if name in moved[1] and not means else []
        notes.append(f"column {name} was of type {before}, and is of type {now}{''.join(means)}")
    return notes


def _unjudged(count: int) -> list[str]:
    message = (
        f"{count:,} rows are back that left before the mapping's fields or types changed: whether they changed while "
        "away can't be known, so they are not inserted again; their next change is"
    )
    return [message] if count else []


def _moved(mapping: Mapping, state: StateView, relation: pa.Schema) -> Moved:
    """Where a type changed since the last sync so that equal values are other texts."""
    stored = from_header(state.mappings[0]) if state.mappings else mapping
    key = ", ".join(f"key column {name} {how}" for name, how in _key_moves(mapping, stored))
    text = ", ".join(f"column {name} {how}" for name, how in _text_moves(stored, relation))
    return Moved(key, text)


def _key_moves(mapping: Mapping, stored: Mapping) -> list[tuple[str, str]]:
    if len(mapping.key_forms) != len(stored.key_forms):
        return []
    forms = zip(mapping.key, stored.key_forms, mapping.key_forms, strict=True)
    return [(name, _was(name, mapping, stored)) for name, before, now in forms if before != now]


def _text_moves(stored: Mapping, relation: pa.Schema) -> list[tuple[str, str]]:
    """Of what was synced last, whether the mapping of today still has it or not: the rows are compared by it."""
    moved = []
    for column in stored.columns:
        if column.form and column.source in relation.names:
            kind = relation.field(column.source)
            if text_form(kind, column.field) != column.form:
                before = dict(stored.types).get(column.source, "of another type")
                moved.append((column.source, f"was {before}, is {type_name(kind)}"))
    return moved


def _was(name: str, mapping: Mapping, stored: Mapping) -> str:
    return f"was {dict(stored.types).get(name, 'of another type')}, is {dict(mapping.types).get(name, 'unknown')}"


def _model_refusal(activation: Activation, state: StateView, found: ChangeSet) -> Problem | None:
    if found.refusals:
        return key_refusal(found.refusals, activation.model.relation_name, activation.name)
    known = keys_in_segment(state.snapshot)
    # A list of records to delete may well be empty: nothing is done then.
    if found.read == 0 and known and activation.mode is not Mode.DELETE:
        message = f"the segment is empty, but {known:,} rows were synced before"
        hint = f"look at the model; if it is right: dinmo-dbt state reset --select {activation.name}"
        return Problem(EMPTY_SEGMENT, message, activation.model.relation_name, hint)
    return None


def _guards(activation: Activation, state: StateView, destination: Destination, ceilings: Ceilings) -> Problem | None:
    where = activation.meta_path
    inserting = activation.mode is Mode.INSERT
    if inserting and ceilings.full:
        return Problem(FULL_INSERT, "--full would insert every known row again", where, "leave --full out for inserts")
    # Rows in flight are this activation's own: a first sync that was cut off, which the next one settles and continues.
    begun = state.exists or bool(state.in_flight)
    if inserting and not begun and not ceilings.first_sync and destination.has_records(activation.object):
        message = (
            f"nothing was synced to this org before, but {activation.object} already holds records: "
            "if this is not the first sync, every row would be doubled"
        )
        if state.other_orgs:
            message += (
                f". The state has it for org {', '.join(state.other_orgs)}: was this org refreshed from that one?"
            )
        hint = (
            f"take the records over: {activation.adopting}. "
            "Lost state: restore the state folder. If every row is to be a new record beside those: add --first-sync"
        )
        return Problem(FIRST_SYNC, message, where, hint)
    return None
