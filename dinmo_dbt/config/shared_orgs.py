"""Orgs that two dbt targets lead to, by mistake perhaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from dinmo_dbt.codes import ORG_OF_TWO_TARGETS
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.dinmo_yml import FileSpec
from dinmo_dbt.config.entry import Entry
from dinmo_dbt.errors import Problem
from dinmo_dbt.org import HOST_SUFFIXES, LOGIN_HOSTS, LOOPBACK


def declared_targets(spec: FileSpec, where: Callable[[KeyPath], str]) -> dict[str, str]:
    """Each dbt target, and where its first org is declared."""
    found: dict[str, str] = {}
    for name, destination in spec.destinations.items():
        for target in destination.targets:
            found.setdefault(target, where(("destinations", name, "targets", target)))
    return found


def may_share(spec: FileSpec, chosen: str | None, other: str) -> bool:
    """Whether the chosen target's entries, or the other's, name one another in `shares_org_with`."""
    named = {(chosen, other), (other, chosen)}
    return any(
        (target, name) in named
        for destination in spec.destinations.values()
        for target, written in destination.targets.items()
        for name in written.shares_org_with
    )


def shared_orgs(entries: Sequence[Entry], spec: FileSpec) -> Iterator[Problem]:
    """Entries of other targets that lead to an org of the chosen one, as far as their texts show it:
    what another target renders is not known here, so nothing is said of it."""
    reported: set[str] = set()
    for entry in entries:
        for beside in entries:
            if not entry.chosen or beside.target == entry.target or beside.target in reported:
                continue
            if may_share(spec, entry.target, beside.target):
                continue
            pin, other_pin = entry.organization_id(), beside.organization_id()
            if pin and other_pin and pin != other_pin:
                continue
            if _leads_to(entry) & _leads_to(beside):
                reported.add(beside.target)
                yield _shared(entry, beside)


def _shared(entry: Entry, beside: Entry) -> Problem:
    where = entry.reading.read.where
    message = (
        f"dbt targets {show(entry.target)} and {show(beside.target)} lead to one org: each would send its rows over "
        f"the other's. {show(beside.target)} is at {where(beside.path)}"
    )
    hint = (
        f"give one of them an org of its own. If it is meant: shares_org_with: [{beside.target}] here; a "
        "record that the other target holds is never removed then"
    )
    return Problem(ORG_OF_TWO_TARGETS, message, where(entry.path), hint)


def _leads_to(entry: Entry) -> set[str]:
    """What tells the org of an entry: nothing where that is not known. A login host that every org has tells no
    org without a user, and of a proxy's host nothing is known."""
    spec, final = entry.spec, entry.final
    if spec.org:
        return {spec.org}
    pin = entry.organization_id()
    found = {pin} if pin else set()
    auth = spec.auth
    username = final(auth.username, "auth", "username") if auth and auth.username else None
    instance = auth.instance_url if auth else None
    if auth and auth.flow == "sf_cli":
        name = final(auth.alias or auth.username or "", "auth", "alias")
        found |= {f"org {name} of the Salesforce CLI"} if name is not None else set()
    for text, key in ((spec.login_url, ("login_url",)), (instance, ("auth", "instance_url"))):
        url = final(text, *key) if text else None
        parts = urlsplit(url or "")
        host = parts.hostname or ""
        if host.endswith(HOST_SUFFIXES) or host in LOOPBACK:
            found.add(parts.netloc.lower())
        elif host in LOGIN_HOSTS and username:
            found.add(f"{username}@{host}")
    return found
