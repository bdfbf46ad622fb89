"""Plans and sync runs as text and as versioned JSON. Pure: values in, text out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.cli.printed import count, count_word, field_names, problem_json, problem_lines
from dinmo_dbt.codes import KEYS_REPLACED
from dinmo_dbt.delivery.run import Audited, Outcome, SyncRun
from dinmo_dbt.destination import Fate
from dinmo_dbt.plan.plan import LEFT_OUT, Counts, Plan
from dinmo_dbt.salesforce.errors import explained

if TYPE_CHECKING:
    from dinmo_dbt.upkeep.adopt import Adoption
    from dinmo_dbt.upkeep.rekey import Rekeying
    from dinmo_dbt.upkeep.verify import Verification


def _by_number(number: int, of_one: str, of_many: str) -> str:
    return f"{number:,} {of_one if number == 1 else of_many}"


def _it_or_them(number: int) -> str:
    return "it" if number == 1 else "them"


def plan_lines(
    plan: Plan, samples: Sequence[dict[str, Any]] | None = None, *, jobs: Sequence[str] = (), notes: Sequence[str] = ()
) -> list[str]:
    """What a sync of this activation would do. `jobs` are those in flight, `notes` what the plan alone can't know."""
    act, counts = plan.activation, plan.counts
    source = f"{act.model.relation_name}" + (f", segment {act.segment}" if act.segment else "")
    lines = [f"{act.name}: {source} -> {plan.schema.name} ({act.mode})"]
    lines.append(f"  read {counts.read:,}, unchanged {counts.unchanged:,}" + _kinds(counts))
    if plan.refusal:
        lines += [f"  {line}" for line in problem_lines(plan.refusal, "would be refused: ")]
    for batch in plan.batches:
        columns = ", ".join(column.header for column in batch.columns)
        which = ", of rows that left" if batch.leavers else ""
        lines.append(f"  {batch.operation} {count(len(batch.rows), 'row')} by {batch.api}{which}: {columns}")
    if not plan.batches and not plan.refusal:
        lines.append("  nothing to send")
    lines += [f"  {line}" for line in left_out_lines(plan.left_out)]
    flying = counts.in_flight + counts.removal_in_flight
    if flying:
        named = f" ({count_word(jobs, 'job')} {', '.join(jobs)})" if jobs else ""
        lines.append(f"  {count(flying, 'row')} in flight{named}: the next sync settles them first")
    if counts.left:
        lines.append(f"  {count(counts.left, 'row')} left the segment (on_removed: {act.on_removed}{_touched(counts)})")
    lines += [f"  note: {note}" for note in (*plan.notes, *notes)]
    if plan.batches:
        lines.append(f"  about {count(plan.calls, 'API call')}")
    if samples is not None and plan.refusal and plan.refusal.code == KEYS_REPLACED:
        lines += [f"  key left {old}, key came {new}" for old, new in plan.replacing]
    for sample in samples or ():
        lines += [f"  {line}" for line in sample_lines(sample)]
    return lines


def _kinds(counts: Counts) -> str:
    kinds = [
        (counts.added, "new"),
        (counts.changed, "changed"),
        (counts.remapped, "with new fields"),
        (counts.returned, "back in the segment"),
        (counts.resent, "sent again"),
    ]
    return "".join(f", {number:,} {name}" for number, name in kinds if number)


def _touched(counts: Counts) -> str:
    """Of the keys that left, those whose records are not to stay as they are."""
    kinds = [(counts.removing, "now"), (counts.removal_held, "held"), (counts.removal_in_flight, "in flight")]
    shown = [f"{number:,} {name}" for number, name in kinds if number]
    return f"; {', '.join(shown)}" if shown else ""


def left_out_lines(left_out: pa.Table, most: int = 5) -> list[str]:
    """Rows that are not sent or were not delivered, by fate, code and field; never a value."""
    # Salesforce words a rejection row by row; `rejected` lists those.
    rejected = pc.equal(left_out["fate"], Fate.REJECTED.value)
    shown = pc.if_else(rejected, pa.scalar(None, pa.utf8()), left_out["shown"])
    groups = _grouped(left_out.set_column(left_out.schema.get_field_index("shown"), "shown", shown), "shown")
    lines = []
    for group in groups[:most]:
        reason = " ".join(part for part in (group["code"], f"[{group['fields']}]" if group["fields"] else "") if part)
        why = f": {group['shown']}" if group["shown"] else ""
        lines.append(f"{group['rows']:,} {group['fate'].replace('_', ' ')} ({reason}){why}")
    if len(groups) > most:
        lines.append(f"and {count(len(groups) - most, 'other reason')}: dinmo-dbt rejected")
    return lines


def next_lines(left_out: pa.Table, name: str, *, waiting: int, most: int = 3) -> list[str]:
    """What a person can do for rows that Salesforce refused, now or before: hints, and the commands that help."""
    refused = [group for group in groups_json(left_out) if group["class"] and group["hint"]]
    lines = list(dict.fromkeys(f"-> {group['code']}: {group['hint']}" for group in refused))[:most]
    lines.append(f"-> dinmo-dbt rejected -s {name}: each row with its reason")
    if waiting:
        lines.append(f"-> dinmo-dbt retry -s {name}: what waits is sent now, not when it is due")
    return lines


def sample_lines(sample: dict[str, Any]) -> list[str]:
    """A row that would be sent (`preview.RowChange` as a dict): what is done, then each field that changes."""
    details = ", ".join(part for part in (sample["record_id"], sample["note"]) if part)
    lines = [f"{sample['kind']} {sample['key']}" + (f" ({details})" if details else "")]
    for change in sample["fields"]:
        if sample["kind"] == "delete":
            shown = _value(change["now"])
        elif sample["record_id"] is None:
            shown = _value(change["then"])
        else:
            shown = f"{_value(change['now'])} -> {_value(change['then'])}"
        lines.append(f"    {change['field']}: {shown}")
    if sample["record_id"] and not sample["fields"] and not sample["note"]:
        lines.append("    nothing changes: Salesforce holds these values")
    return lines


def _value(value: Any) -> str:
    if value is None:
        return "(empty)"
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= 60 else text[:57] + "..."


def plan_json(
    plan: Plan,
    samples: Sequence[dict[str, Any]] | None = None,
    *,
    jobs: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    act = plan.activation
    content: dict[str, Any] = {
        "activation": act.name,
        "model": act.model.unique_id,
        "relation": act.model.relation_name,
        "destination": act.destination,
        "object": plan.schema.name,
        "mode": act.mode.value,
        "org_id": plan.org_id,
        "state_serial": plan.serial,
        "first_sync": plan.is_first,
        "counts": counts_json(plan.counts),
        "batches": [
            {
                "operation": batch.operation.value,
                "api": batch.api.value,
                "rows": len(batch.rows),
                "left_segment": batch.leavers,
                "fields": [column.header for column in batch.columns],
            }
            for batch in plan.batches
        ],
        "left_out": groups_json(plan.left_out),
        "api_calls_estimate": plan.calls,
        "refusal": problem_json(plan.refusal) if plan.refusal else None,
        "in_flight_jobs": list(jobs),
        "notes": [*plan.notes, *notes],
    }
    if samples is None:
        return content
    keys = plan.replacing if plan.refusal and plan.refusal.code == KEYS_REPLACED else ()
    return {**content, "samples": list(samples), "keys_replaced": [{"left": old, "came": new} for old, new in keys]}


def plan_digest(plan: Plan) -> str:
    """SHA-256 over what a plan says: the same rows, state, org and declaration give the same."""
    drawn = json.dumps([plan.activation.digest, plan_json(plan)], sort_keys=True, default=str)
    return hashlib.sha256(drawn.encode()).hexdigest()


def counts_json(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__dataclass_fields__}


def outcome_json(outcome: Outcome) -> dict[str, int]:
    return {name: getattr(outcome, name) for name in outcome.__dataclass_fields__}


def groups_json(left_out: pa.Table) -> list[dict[str, Any]]:
    """How many rows were not delivered for each reason, with its class and what a person can do; never a value."""
    if not left_out.num_rows:
        return []
    groups = _grouped(left_out if "class" in left_out.column_names else explained(left_out), "class", "hint")
    return [{**group, "fields": field_names(group["fields"])} for group in groups]


def _grouped(left_out: pa.Table, *more: str) -> list[dict[str, Any]]:
    """How many rows were left out for each reason, most first."""
    by = ["fate", "code", "fields", *more]
    groups = left_out.group_by(by).aggregate([([], "count_all")]).to_pylist()
    ordered = sorted(groups, key=lambda g: (-g["count_all"], *(str(g[name]) for name in by)))
    return [{**{name: g[name] for name in by}, "rows": g["count_all"]} for g in ordered]


def verification_lines(found: Verification, most: int, *, with_values: bool = False) -> list[str]:
    """What became of the rows that were delivered: counts, then the first rows that drifted or are gone."""
    counts = [
        (found.verified, "verified"),
        (len(found.drifted), "drifted"),
        (len(found.gone), "gone"),
        (found.unverifiable, "can't be verified (no record id is known)"),
    ]
    message = ", ".join(f"{number:,} {name}" for number, name in counts if number or name in ("verified", "drifted"))
    waits = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in found.pending.items() if number)
    lines = [f"  read {found.read:,}: {message}"]
    lines += [f"  pending: {waits}"] if waits else []
    lines += [f"  not compared: {name}: {why}" for name, why in found.left_out]
    for row in found.drifted.slice(0, most).to_pylist():
        lines.append(f"  drifted {row['key']}  {row['record_id']}  {', '.join(row['fields'])}")
        if with_values:
            pairs = zip(row["fields"], row["model"], row["salesforce"], strict=True)
            lines += [
                f"      {name}: model {_value(ours)}, Salesforce {_value(theirs)}" for name, ours, theirs in pairs
            ]
    lines += _more(found.drifted, most, "that drifted")
    for row in found.gone.slice(0, most).to_pylist():
        lines.append(f"  gone {row['key']}  {row['record_id'] or ''}".rstrip())
    lines += _more(found.gone, most, "whose record is gone")
    return lines


def _more(rows: pa.Table, most: int, what: str) -> list[str]:
    left = len(rows) - most
    return [f"  and {count(left, 'more row')} {what}: --limit {len(rows)}"] if left > 0 else []


def verification_json(found: Verification, *, with_values: bool = False) -> dict[str, Any]:
    def fields(row: dict[str, Any]) -> list[Any]:
        if not with_values:
            return list(row["fields"])
        triples = zip(row["fields"], row["model"], row["salesforce"], strict=True)
        return [{"field": name, "model": ours, "salesforce": theirs} for name, ours, theirs in triples]

    drifted, gone = found.drifted.to_pylist(), found.gone.to_pylist()
    return {
        "counts": {
            "read": found.read,
            "verified": found.verified,
            "drifted": len(drifted),
            "gone": len(gone),
            "unverifiable": found.unverifiable,
            "pending": found.pending,
        },
        "fields": list(found.fields),
        "not_compared": [{"field": name, "reason": why} for name, why in found.left_out],
        "drifted": [{"key": r["key"], "record_id": r["record_id"], "fields": fields(r)} for r in drifted],
        "gone": [{"key": r["key"], "record_id": r["record_id"]} for r in gone],
    }


def adoption_lines(activation: Activation, found: Adoption, org_id: str, most: int) -> list[str]:
    """What would be taken over, what would not and why, and what the next sync then does."""
    by = ", ".join(f"{column} = {name}" for column, name in found.matched_by)
    matched, sent = len(found.rows), len(found.rows) - found.equal
    counts = [
        (matched, "matched"),
        (len(found.ambiguous), "ambiguous"),
        (len(found.unmatched), "unmatched"),
        (found.known, "known already"),
        (found.in_flight, "in flight"),
        (found.invalid, "invalid"),
    ]
    message = ", ".join(f"{number:,} {name}" for number, name in counts if number or name in ("matched", "unmatched"))
    lines = [
        f"{activation.name}: adopt records of {activation.object} in org {org_id} by {by}",
        f"  read {found.read:,}: {message}",
    ]
    if found.doubtful:
        lines.append(f"  of the matched, {found.doubtful:,} may have been inserted by an earlier run")
    inserting = activation.mode is Mode.INSERT
    if matched and inserting:
        lines.append(f"  the matched count as delivered ({sent:,} differ from the model; an insert changes no record)")
    elif matched:
        lines.append(f"  of the matched, {found.equal:,} are as in the model; the next sync sends the other {sent:,}")
    if len(found.doubts):
        lines.append(
            "  the ambiguous are not inserted as they are: try a closer --match, or retry --unknown sends them"
        )
    if len(found.unmatched):
        then = {Mode.INSERT: "inserts the unmatched", Mode.UPSERT: "makes records of the unmatched"}
        lines.append(f"  the next sync {then.get(activation.mode, 'looks for the unmatched again')}")
    if matched and activation.on_removed == "delete":
        lines.append("  on_removed: delete: records that are adopted may be deleted when their rows leave the segment")
    for row in found.ambiguous.slice(0, most).to_pylist():
        lines.append(f"  ambiguous {row['key']}: {row['reason']}")
    lines += _more(found.ambiguous, most, "that are ambiguous")
    lines += [f"  unmatched {key}" for key in found.unmatched["key"].slice(0, most).to_pylist()]
    return [*lines, *_more(found.unmatched, most, "without a record")]


def adoption_json(found: Adoption) -> dict[str, Any]:
    return {
        "matched_by": [{"column": column, "field": name} for column, name in found.matched_by],
        "counts": {
            "read": found.read,
            "matched": len(found.rows),
            "equal": found.equal,
            "ambiguous": len(found.ambiguous),
            "unmatched": len(found.unmatched),
            "known": found.known,
            "in_flight": found.in_flight,
            "invalid": found.invalid,
        },
        "matched": found.rows.select(["key", "record_id"]).to_pylist(),
        "ambiguous": found.ambiguous.to_pylist(),
        "unmatched": found.unmatched["key"].to_pylist(),
    }


def rekeying_lines(activation: Activation, found: Rekeying, most: int) -> list[str]:
    """Which rows would get another key, and what the next sync does with them and the others."""
    counts = [
        (len(found.pairs), "paired"),
        (found.known, "known by their key"),
        (found.ambiguous, "ambiguous"),
        (found.fresh, "new"),
    ]
    each = ", ".join(f"{number:,} {name}" for number, name in counts if number or name == "paired")
    lines = [f"{activation.name}: known rows under today's keys", f"  read {found.read:,}: {each}"]
    other, equal = len(found.pairs) - found.equal, found.equal
    if equal:
        how_many = _by_number(equal, "is as it was acknowledged", "are as they were acknowledged")
        lines.append(f"  of the paired, {how_many}: nothing is sent of {_it_or_them(equal)}")
    if other:
        how_many = _by_number(other, "differs from what was acknowledged", "differ from what was acknowledged")
        as_now = "it as it is" if other == 1 else "them as they are"
        inserts = activation.mode is Mode.INSERT
        then = f"an insert takes {as_now}" if inserts else f"the next sync sends {_it_or_them(other)}"
        lines.append(f"  of the paired, {how_many}, or it can't be known: {then}")
    if found.lost:
        whose = "its" if found.lost == 1 else "theirs"
        lines.append(f"  {count(found.lost, 'known key')} left over: no row is {whose}")
    for row in found.pairs.slice(0, most).to_pylist():
        lines.append(f"  {row['old']} -> {row['new']}")
    return [*lines, *_more(found.pairs, most, "that are paired")]


def rekeying_json(found: Rekeying) -> dict[str, Any]:
    names = ("read", "known", "equal", "ambiguous", "fresh", "lost")
    counts = {name: getattr(found, name) for name in names} | {"paired": len(found.pairs)}
    return {"counts": counts, "pairs": found.pairs.to_pylist()}


def run_status(run: SyncRun, seconds: float) -> str:
    """What stands in brackets on an activation's last line."""
    counts, outcome = run.plan_counts, run.outcome
    flying = run.on_their_way
    if run.on_its_way and not counts.read:
        return f"{count(flying, 'row')} on their way in {seconds:.2f}s"
    parts = [f"{outcome.succeeded - outcome.removed:,} sent"]
    for number, name in (
        (outcome.removed, "removed"),
        (counts.rejected + outcome.rejected, "rejected"),
        (counts.invalid, "invalid"),
        (counts.no_match, "no match"),
        (counts.ambiguous, "ambiguous"),
        (counts.held + counts.removal_held + outcome.held - flying, "held"),
        (flying, "on their way"),
        (outcome.unknown, "unknown"),
    ):
        if number:
            parts.append(f"{number:,} {name}")
    parts.append(f"{counts.unchanged:,} unchanged")
    return f"{', '.join(parts)} in {seconds:.2f}s"


def audit_lines(audited: Audited) -> list[str]:
    """What an audit found that a person wants to know; nothing where all is as it should be."""
    of = f"of {count(audited.compared, 'row')} compared with Salesforce"
    lines = [f"the audit was left out: {audited.left_out}"] if audited.left_out else []
    if audited.unread:
        rows = audited.compared + audited.unread
        theirs = "its record" if audited.unread == 1 else "their records"
        lines.append(
            f"of {count(rows, 'row')} to be compared, {audited.unread:,} could not be: Salesforce did not give "
            f"{theirs}, or, of rows that are all alike, did not say which is whose"
        )
    since = [(audited.drifted - audited.deleted, "changed"), (audited.deleted, "deleted")]
    found = [f"{_by_number(number, 'was', 'were')} {what} there" for number, what in since if number]
    if found:
        lines.append(f"{of}, {' and '.join(found)} since the last delivery: dinmo-dbt verify")
    if audited.rewritten:
        hold = _by_number(audited.rewritten, "just delivered holds", "just delivered hold")
        lines.append(f"{of}, {hold} other values already (an automation of the org?)")
    if audited.fields:
        lines.append(f"fields: {', '.join(audited.fields)}")
    return lines


def run_json(run: SyncRun) -> dict[str, Any]:
    """What the history keeps of a run besides its status and times."""
    return {
        "counts": counts_json(run.plan_counts),
        "outcome": outcome_json(run.outcome),
        "recovered": outcome_json(run.recovered),
        "left_out": groups_json(pa.concat_tables([LEFT_OUT.empty_table(), *run.not_delivered])),
        "jobs": run.jobs,
        "audit": asdict(run.audited) if run.audited else None,
        "problem": problem_json(run.problem) if run.problem else None,
    }
