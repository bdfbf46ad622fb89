"""What a run may do at most: one look at all that it would do to Salesforce, by ceilings. Pure.

A ceiling is a number of rows, or a share of the rows that are known. It holds for one run, and for the run together
with what other runs were acknowledged within a day before it. Each is passed by a number of its own for one run, and
by no other flag. What such a number let pass is not held against the next run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from dinmo_dbt.activation import Activation, Ceiling, Guards, Mode
from dinmo_dbt.codes import (
    KEYS_REPLACED,
    MAX_CHANGE,
    MAX_CREATED,
    MAX_DELETE,
    REMAPPED,
    TEXT_CHANGED_WITH_TYPE,
    VALUES_MOVED,
)
from dinmo_dbt.errors import Problem
from dinmo_dbt.rows.sets import among, distinct, union, without

# A share of the known rows means nothing for a handful of them.
GUARDED_ROWS_MIN = 1_000
# So many keys that come back in another spelling are no coincidence, however many others there are.
RESPELLED_MAX = 10
DAY_S = 24 * 3600.0

KeyHashes = npt.NDArray[np.uint64]


class Counted(IntEnum):
    """As what an acknowledged row counts for a day."""

    NOT = 0
    CREATED = 1
    CHANGED = 2
    REMOVED = 3
    RESPELLED = 4  # created, under a key that left in another spelling, or with the values of a row that left


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the user allowed on the command line for this one run: each a number of rows, not a switch.

    `full` is a ceiling too: it lets rows pass that are known and equal to what was acknowledged, and no other.
    """

    allow_changes: int = 0
    allow_creates: int = 0
    allow_replaced: int = 0
    allow_remap: int = 0
    allow_deletes: int = 0
    first_sync: bool = False
    full: bool = False


@dataclass(frozen=True)
class Day:
    """What was acknowledged within the last day and is held against the next run: how many rows were new, the key
    hashes of known rows that were written (each once), and how many records were removed; how many of the new rows are
    a key that left in another spelling, or with its values; and the hashes of the keys that left, whatever became of
    their records."""

    created: int = 0
    changed: KeyHashes = field(default_factory=lambda: np.empty(0, np.uint64))
    removed: int = 0
    respelled: int = 0
    left: KeyHashes = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(frozen=True)
class Effect:
    """What a run would do: rows that would be sent, and no others.

    `known`: keys that the state has; of them `present` were in the segment after the last sync. `created`: new keys.
    `changed`: key hashes of known rows with values that Salesforce did not acknowledge last. `remapped`: known rows
    that get fields which the mapping did not have. `removed`: records deleted, or set by `on_removed`. `left`: hashes
    of keys that leave the segment; `away`: of those that had left before and are not back. `respelled`: new keys that
    are a key of these, written in another way, or with its very values. `shifted`: rows of an insert, sent or not, with
    the values that another known key had, which has others now. `admitted`: how many new rows an earlier run was let to
    send that are not known yet: it was cut off, or they were refused.
    """

    known: int
    present: int
    created: int = 0
    changed: KeyHashes = field(default_factory=lambda: np.empty(0, np.uint64))
    remapped: int = 0
    removed: int = 0
    left: KeyHashes = field(default_factory=lambda: np.empty(0, np.uint64))
    away: KeyHashes = field(default_factory=lambda: np.empty(0, np.uint64))
    respelled: int = 0
    shifted: int = 0
    admitted: int = 0

    @property
    def gone(self) -> int:
        return len(self.left)

    @property
    def replaced(self) -> int:
        """How many keys left while as many new ones came."""
        return min(self.gone, self.created)


@dataclass(frozen=True)
class _Replaced:
    """Keys that new ones took the place of: left and came in this `run`, or within a `day`, in one run or in several;
    `here`: of the new keys of the run. `respelled`: of the day too, if the run has any. `base`: how many keys the
    segment had a day before."""

    run: int
    day: int
    here: int
    respelled: int
    base: int

    @classmethod
    def of(cls, effect: Effect, day: Day) -> _Replaced:
        before = len(without(day.left[among(day.left, effect.away)], effect.left))
        replaced = min(before + effect.gone, effect.created + day.created)
        here = max(effect.replaced, replaced - day.created)
        respelled = effect.respelled + day.respelled if effect.respelled else 0
        return cls(effect.replaced, replaced, here, respelled, max(0, effect.present + before - day.created))

    @property
    def rows(self) -> int:
        return max(self.day, self.respelled)


@dataclass(frozen=True)
class Moved:
    """What is said where a model's types changed so that the text of a key, or of a mapped column, did: how, in
    words; '' where none did."""

    key: str = ""
    text: str = ""


@dataclass(frozen=True)
class GuardResult:
    """The guard that keeps a run from being executed, if any; and what its flags let pass, which does not count for
    the day."""

    refusal: Problem | None = None
    passed: frozenset[Counted] = frozenset()


@dataclass(frozen=True)
class _Need:
    """What a run needs to be allowed: what it would do, and the flag with the number that allows it."""

    code: str
    message: str
    flag: str
    rows: int
    counted: tuple[Counted, ...]
    hint: str = ""


def judge(activation: Activation, effect: Effect, day: Day, ceilings: Ceilings, moved: Moved = Moved()) -> GuardResult:
    """Whether a run may do all that. A refusal names every ceiling that it would pass, by the code of the first."""
    asked = _asked(activation, effect, day, moved)
    allowed = {
        "--allow-replaced": ceilings.allow_replaced,
        "--allow-changes": ceilings.allow_changes,
        "--allow-remap": ceilings.allow_remap,
        "--allow-creates": ceilings.allow_creates,
        "--allow-deletes": ceilings.allow_deletes,
    }
    tripped = [each for each in asked if each.rows > allowed[each.flag]]
    passed = frozenset(kind for each in asked if each not in tripped for kind in each.counted)
    if not tripped:
        return GuardResult(None, passed)
    ways = [each.hint for each in tripped if each.hint]
    flags = " ".join(f"{each.flag} {each.rows}" for each in tripped)
    message = "; ".join(each.message for each in tripped)
    hint = "\n".join([*ways, f"if that is right: {flags}"])
    return GuardResult(Problem(tripped[0].code, message, activation.meta_path, hint), passed)


def _asked(activation: Activation, effect: Effect, day: Day, moved: Moved) -> list[_Need]:
    """Every ceiling that the run needs to be raised for it."""
    guards = activation.guards
    if activation.mode is Mode.DELETE:
        return [*_removed(activation, effect, day)]
    # No update makes a record: a new key in the place of one that left writes to a record as a changed row does.
    replaced, makes = _Replaced.of(effect, day), activation.mode is not Mode.UPDATE
    asked = _replaced(activation, effect, replaced, moved) if makes else []
    # What takes the place of keys that left is asked for as that, and not once more.
    fresh = max(0, effect.created - (replaced.here if asked or not makes else 0) - effect.admitted)
    return [
        *asked,
        *_changed(activation, effect, day, None if makes else replaced, moved),
        *_remapped(guards, effect),
        *_created(guards, effect, fresh, day),
        *_removed(activation, effect, day),
    ]


def replaced_note(activation: Activation, effect: Effect, day: Day) -> str:
    """What is said of a run that passes: how many keys are replaced by new ones; '' for none."""
    replaced = _Replaced.of(effect, day)
    if activation.mode not in (Mode.INSERT, Mode.UPSERT) or not max(replaced.here, effect.respelled):
        return ""
    return f"{_turned_over(effect, replaced)}; guards.max_replaced is {activation.guards.max_replaced}"


def _turned_over(effect: Effect, replaced: _Replaced) -> str:
    message = (
        f"{effect.gone:,} of {effect.present:,} known keys left the segment while {effect.created:,} new ones came"
    )
    if replaced.day > replaced.run:
        message += f", and within a day {replaced.day:,} of {replaced.base:,} have new ones in their place"
    if replaced.respelled:
        message += f", {replaced.respelled:,} of them a key that left in another spelling, or with its very values"
    return message


def _replaced(activation: Activation, effect: Effect, replaced: _Replaced, moved: Moved) -> list[_Need]:
    ceiling = activation.guards.max_replaced
    over = replaced.run > ceiling.limit(effect.present) or replaced.day > ceiling.limit(replaced.base)
    message = _turned_over(effect, replaced)
    message = f"{moved.key}: {message}" if moved.key else message
    if not max(replaced.here, effect.respelled):
        return []
    if not (replaced.respelled > RESPELLED_MAX or 1 < replaced.respelled > replaced.base / 2 or moved.key):
        if not over:
            return []
        message += ": did the key change its spelling, or is it not the same twice? Or did the segment change?"
    makes = "would make a record of each" if activation.mode is Mode.INSERT else "would make a record where it can"
    name = activation.name
    hint = (
        f"to see keys: dinmo-dbt plan -s {name} --show-values\n"
        f"the same rows under other keys: dinmo-dbt state rekey {name}\n"
        f"or take over what Salesforce holds: {activation.adopting}\n"
        f"or forget what is known: dinmo-dbt state reset {name}"
    )
    passes = (Counted.CREATED, Counted.RESPELLED)
    message += "" if message.endswith("?") else "."
    return [_Need(KEYS_REPLACED, f"{message} A sync {makes}", "--allow-replaced", replaced.rows, passes, hint)]


def _changed(activation: Activation, effect: Effect, day: Day, again: _Replaced | None, moved: Moved) -> list[_Need]:
    ceiling = activation.guards.max_change
    of_run = len(distinct(effect.changed)) + (again.here if again else 0)
    of_day = len(union(effect.changed, day.changed)) + (again.day if again else 0)

    def asked(message: str, rows: int, code: str = MAX_CHANGE, hint: str = "") -> list[_Need]:
        return [_Need(code, message, "--allow-changes", rows, (Counted.CHANGED,), hint)]

    if _is_shifted(effect) and not ceiling.lets_all(effect.known):
        message = (
            f"{effect.shifted:,} rows have the very values that another known key had: did they move from key to key "
            "(a row number? a time in another zone?)? A sync would make such rows again, or leave out new ones"
        )
        hint = (
            "give the model a key that stays with its row, then start again: "
            f"dinmo-dbt state reset {activation.name}\nand take over what Salesforce holds: {activation.adopting}\n"
            "where rows change places each day: guards: {max_change: 100%}"
        )
        return asked(message, max(of_day, effect.shifted), VALUES_MOVED, hint)
    if not of_run:
        return []
    limit = ceiling.limit(effect.known)
    makes = activation.mode is Mode.INSERT
    over = (makes or effect.known >= _least(ceiling)) and of_day > limit
    if moved.text and makes:
        message = f"{moved.text}: {of_run:,} rows are not what they were before, and would be inserted again"
        hint = "to take them as they are, without a send: on_change: ignore for one sync"
        return asked(message, of_day if over else of_run, TEXT_CHANGED_WITH_TYPE, hint)
    if not over:
        return []
    why = f"guards.max_change is {ceiling}"
    hint = "each would be one more record; for one record a key, whatever becomes of its row: on_change: ignore"
    hint = hint if makes else ""
    if of_run > limit:
        return asked(f"{of_run:,} of {effect.known:,} known rows changed; {why}", of_day, hint=hint)
    return asked(
        f"with {of_run:,} more, {of_day:,} of {effect.known:,} known rows changed within a day; {why}",
        of_day,
        hint=hint,
    )


def _is_shifted(effect: Effect) -> bool:
    return effect.shifted > RESPELLED_MAX or 1 < effect.shifted > effect.present / 2


def _least(ceiling: Ceiling) -> int:
    """From how many known rows up a ceiling holds: a share means nothing for a handful of rows, a number does. Of what
    an insert would make again it holds always: no later run takes a record back."""
    return 1 if ceiling.rows is not None else GUARDED_ROWS_MIN


def _remapped(guards: Guards, effect: Effect) -> list[_Need]:
    rows = effect.remapped
    if effect.known < _least(guards.max_change) or rows <= guards.max_change.limit(effect.known):
        return []
    message = f"the mapping changed: {rows:,} of {effect.known:,} known rows would be sent their new fields"
    return [_Need(REMAPPED, message, "--allow-remap", rows, ())]


def _created(guards: Guards, effect: Effect, fresh: int, day: Day) -> list[_Need]:
    """A first sync is its own case: nothing is known that new rows could be too many for."""
    ceiling, before = guards.max_created, effect.known - day.created

    def over(rows: int, known: int) -> bool:
        return known >= _least(ceiling) and rows > ceiling.limit(known)

    why = f"guards.max_created is {ceiling}"
    if over(fresh, effect.known):
        message = f"{fresh:,} new rows beside {effect.known:,} known ones; {why}"
    elif fresh and over(fresh + day.created, before):
        message = f"with {fresh:,} more, {fresh + day.created:,} new rows came within a day to {before:,}; {why}"
    else:
        return []
    rows = fresh + day.created if over(fresh + day.created, before) else fresh
    return [_Need(MAX_CREATED, message, "--allow-creates", rows, (Counted.CREATED,))]


def _removed(activation: Activation, effect: Effect, day: Day) -> list[_Need]:
    """It holds for any number of known rows."""
    ceiling, rows, of_day = activation.guards.max_delete, effect.removed, effect.removed + day.removed
    if not rows or (rows <= ceiling.limit(effect.present) and of_day <= ceiling.limit(effect.present + day.removed)):
        return []
    if activation.mode is Mode.DELETE:
        what = f"{rows:,} records would be deleted"
    else:
        done = "deleted" if activation.on_removed == "delete" else "set as on_removed says"
        what = f"{effect.gone:,} rows left the segment, and {rows:,} records would be {done}"
    if day.removed:
        what += f", after {day.removed:,} within a day"
    return [_Need(MAX_DELETE, f"{what}; guards.max_delete is {ceiling}", "--allow-deletes", of_day, (Counted.REMOVED,))]


def deletes_max(guards: Guards, present: int, allowed: int) -> int:
    """How many records one run may delete: what `guards.max_delete` says, or what is `allowed` for this once."""
    return max(guards.max_delete.limit(present), allowed)
