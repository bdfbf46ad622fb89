"""What is said of a state, or of its history alone, that is not as it was written."""

from __future__ import annotations

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import HISTORY_DAMAGED, STATE_DAMAGED, STATE_FORMAT
from dinmo_dbt.errors import Problem, StateError

START_AGAIN = (
    "end what is under way with the dinmo-dbt that wrote it, then: dinmo-dbt state reset --all. Then for every insert, "
    "and for others whose rows are not to be sent once more: dinmo-dbt state adopt ACTIVATION, which writes no record"
)


class HistoryDamaged(StateError):
    """The history alone is not what was written; never reported as an error of a command."""


def state_damaged(where: str) -> StateError:
    """DB502: what is there was not written by us, or not like this."""
    return StateError(
        STATE_DAMAGED,
        "the state is damaged, or is none of dinmo-dbt's; it is left as it is",
        where=where,
        hint="restore the state from a copy, or move it away and start again: insert activations then by "
        "dinmo-dbt state adopt ACTIVATION",
    )


def history_damaged(where: str) -> HistoryDamaged:
    """DB502 for the history alone."""
    return HistoryDamaged(STATE_DAMAGED, "the history of runs is damaged, or is none of dinmo-dbt's", where=where)


def history_out_of_reach(where: str) -> Problem:
    """What is said, once, where a damaged one can't be put aside."""
    return Problem(
        HISTORY_DAMAGED,
        "the damaged history can't be put aside: what this command would note in it is lost",
        where,
        "give the state's folder, and all in it, to the user who runs dinmo-dbt",
    )


def history_damage_note(where: str, found: str) -> Problem:
    """What is said of it, once."""
    return Problem(
        HISTORY_DAMAGED,
        f"the history of runs is damaged{found}; no row is in it, and what can be read of it is used",
        where,
        "nothing has to be done: the next command that writes puts the damaged one aside and goes on. Or move it away "
        "yourself, and nothing else: pauses and warnings are forgotten then, and schedules start again",
    )


def ways_out(name: str, activation: Activation, *serials: int) -> str:
    """Commands after which a refused state can be written again."""
    if activation.mode is Mode.INSERT:
        return f"take over what Salesforce holds: dinmo-dbt state reset {name}, then {activation.adopting}"
    back = f"dinmo-dbt state reset {name} --to-serial {serials[0]}, or " if serials else ""
    return f"{back}start again: dinmo-dbt state reset {name}"


def ways_out_of_identity(activation: Activation) -> str:
    """To begin again with another object, key or match, by which an upsert may find no record of rows that have one."""
    again = ways_out(activation.name, activation)
    if activation.mode is not Mode.UPSERT:
        return again
    return f"{again}, then {activation.adopting}, which shows the rows that have no record: the next sync makes theirs"


def other_format(what: str, found: int, todays: int, where: str, way_out: str) -> StateError:
    """DB514: another version of dinmo-dbt wrote it. `way_out`: what to do about one that is older."""
    return StateError(
        STATE_FORMAT,
        f"{what} has format {found}; this version reads {todays}",
        where=where,
        hint="use the newer dinmo-dbt that wrote it" if found > todays else way_out,
    )
