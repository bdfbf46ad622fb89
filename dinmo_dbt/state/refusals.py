"""Why a state is not used: another identity, hash or name, an older copy, or an org that two targets have. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import IDENTITY_CHANGED, ORG_OF_ANOTHER_TARGET, OTHER_ROW_HASH, RENAMED, STATE_PUT_BACK
from dinmo_dbt.errors import StateError
from dinmo_dbt.rows.rowhash import HASH_VERSION
from dinmo_dbt.state.damage import ways_out, ways_out_of_identity
from dinmo_dbt.state.state_id import StateId


def refuse_other_identity(activation: Activation, identity: Mapping[str, Any]) -> None:
    """StateError if the state is of another key, object, match or mode than the activation has."""
    wanted = identity_of(activation)
    names = [name for name in wanted if _folded(identity.get(name)) != _folded(wanted[name])]
    if not names:
        return
    changes = ", ".join(f"{name} was {_shown(identity.get(name))}, is {_shown(wanted[name])}" for name in names)
    raise StateError(
        IDENTITY_CHANGED,
        f"the state of {activation.name} is of another identity: {changes}",
        where=activation.meta_path,
        hint=f"undo that, give the activation another name, or {ways_out_of_identity(activation)}",
    )


def refuse_other_hash(activation: Activation, where: str, version: int) -> None:
    """Hashes of two versions can't be compared, so every row would look changed: only Salesforce can tell."""
    if version != HASH_VERSION:
        name = activation.name
        raise StateError(
            OTHER_ROW_HASH,
            f"the rows were hashed by version {version} of the row hash; this dinmo-dbt has version "
            f"{HASH_VERSION}, and can't tell which of them changed",
            where=where,
            hint=f"compare them with Salesforce, once: dinmo-dbt state reset {name}, then before any sync "
            f"{activation.adopting} --yes, which takes over what is equal and writes no record",
        )


def refuse_older(activation: Activation, where: str, serial: int, newest: int) -> None:
    """StateError if a newer serial is known of than the state has: it is a copy of an earlier day."""
    if serial < newest:
        raise StateError(
            STATE_PUT_BACK,
            f"the state is an older copy: it has serial {serial}, and serial {newest} was reached before",
            where=where,
            hint="was this folder copied, and the other copy synced since? Give each an org of its own. "
            "Else put the newer state back, or go on from this one: " + ways_out(activation.name, activation, serial),
        )


def refuse_renamed(activation: Activation, siblings: Sequence[str], declared: Sequence[str]) -> None:
    """StateError if this activation looks like one that was renamed: state without an activation, beside it."""
    orphans = [name for name in siblings if name not in declared]
    if orphans:
        raise StateError(
            RENAMED,
            f"{activation.name} has no state, but {orphans[0]}, which is declared no more, has: "
            "same model, same object",
            where=activation.meta_path,
            hint=f"renamed? dinmo-dbt state move {orphans[0]} {activation.name}. "
            f"A new one? dinmo-dbt state reset {orphans[0]}",
        )


def refuse_shared(
    own: StateId, others: Mapping[str, Sequence[str]], where: str, may_share: Collection[str], places: Mapping[str, str]
) -> None:
    """StateError if another dbt target's state is of this org, and neither target says that this is meant.
    `places`: where the targets that there are declared."""
    target = own.target
    for other, names in others.items():
        if other in may_share:
            continue
        declared = places.get(other)
        moving = f"renamed? dinmo-dbt state move --from-target {other} --target {target}"
        meant = f"two targets on purpose? shares_org_with: [{other}] under target {target} in dinmo.yml"
        ways = [meant, moving] if declared else [moving, meant]
        there = f"declared at {declared}" if declared else "which dinmo.yml does not have any more"
        raise StateError(
            ORG_OF_ANOTHER_TARGET,
            f"org {own.org_id} is dbt target {other}'s too: the state has {len(names)} of its activations there, "
            f"{names[0]} among them; {other} is {there}",
            where=places.get(target, where),
            hint=f"{'. '.join(ways)}. {other} not in use any more? dinmo-dbt state reset --all --of-target {other}",
        )


def identity_of(activation: Activation) -> dict[str, Any]:
    """What a state belongs to, besides its org and name; a change of it is another state."""
    mode = "update/upsert" if activation.mode.value in ("update", "upsert") else activation.mode.value
    return {
        "object": activation.object,
        "key": list(activation.key),
        "match": [activation.match.column, activation.match.field] if activation.match else None,
        "mode": mode,
    }


def _folded(value: Any) -> Any:
    """As Salesforce and most warehouses compare names: without case."""
    return [_folded(part) for part in value] if isinstance(value, list) else str(value).lower()


def _shown(value: Any) -> str:
    return "none" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
