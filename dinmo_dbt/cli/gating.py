"""What dbt's own verdict lets a command sync, and why an activation is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinmo_dbt.cli.options import Gating
from dinmo_dbt.cli.pausing import paused_by_hand
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import BLOCKED, BUILT_MEANWHILE
from dinmo_dbt.errors import DbtCloudError, Refused

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation


def skip_reason(session: Session, activation: Activation, gating: Gating) -> tuple[str, str] | None:
    """Why an activation is not synced: (status, reason); None if it is."""
    from dinmo_dbt.artifacts.gate import Standing

    if not activation.enabled:
        return "skipped", "enabled: false"
    if why := paused_by_hand(session, activation):
        return "skipped", why
    if gating.ignore:
        return None
    if gating.only_built and session.run_results and activation.model.unique_id not in session.run_results.built:
        return "skipped", "not built by this dbt command"
    verdict = session.gate.verdict(activation.model.unique_id)
    if verdict.standing is Standing.UNDER_WAY:
        return "under way", verdict.reason
    if verdict.is_blocked:
        return "blocked", verdict.reason
    if verdict.standing is Standing.UNBUILT and gating.require_built:
        return "skipped", verdict.reason or "not built by the last dbt command"
    return None


def judge_again(session: Session, activation: Activation) -> None:
    """The rows are read: refuse to send them where dbt's word on their table is another one by now. What dbt builds
    meanwhile is judged when that is over."""
    from dinmo_dbt.artifacts.gate import Standing

    try:
        gate, results = session.gate_by_now()
    except DbtCloudError as error:
        message = f"whether it was built again since its rows were read is not known: {error.problems[0].message}"
        raise Refused(
            BUILT_MEANWHILE, message, where=activation.model.unique_id, hint="run again when dbt Cloud answers"
        ) from None
    verdict = gate.verdict(activation.model.unique_id)
    if verdict.standing is Standing.BLOCKED:
        raise Refused(
            BLOCKED, verdict.reason, where=activation.model.unique_id, hint="mend the model, then run dbt build again"
        )
    before, now = (
        each.built.get(activation.model.unique_id) if each else None for each in (session.run_results, results)
    )
    is_under_way = verdict.standing is Standing.UNDER_WAY
    if is_under_way or (now is not None and now != before):
        why = verdict.reason if is_under_way else "dbt has built it again since its rows were read"
        raise Refused(BUILT_MEANWHILE, why, where=activation.model.unique_id, hint="run again when dbt has ended")
