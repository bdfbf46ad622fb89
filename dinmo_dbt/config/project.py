"""dinmo.yml: destinations per dbt target, defaults, state, emulator, channels. Only the chosen target renders.

`load_project` reads the file as `document` does, checks its shape whole, then renders `env_var()` and `var()` in the
chosen target's part and checks the rendered values. A secret comes from the environment or from a file, never from
this document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinmo_dbt.codes import (
    KEYS_CONFLICT,
    NO_DESTINATION,
    NO_DINMO_YML,
    NO_TARGET,
    NOT_A_CHANNEL_URL,
    NOT_ALLOWED,
    WRONG_TYPE,
)
from dinmo_dbt.config import declaration, document
from dinmo_dbt.config.channel import Channel, Digest, channel_url_problem
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import dotted, show
from dinmo_dbt.config.dinmo_yml import FILE_NAME, ChannelsSpec, StateSpec
from dinmo_dbt.config.entry import Entry
from dinmo_dbt.config.login import org_of
from dinmo_dbt.config.reading import Reading
from dinmo_dbt.config.shape import spec_of, targets_of
from dinmo_dbt.config.shared_orgs import declared_targets, may_share, shared_orgs
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.org import Org, Secret


@dataclass(frozen=True, slots=True)
class EmulatorConfig:
    """The embedded org: its schema, its starting records, and where it keeps its data. `named`: which of the three
    dinmo.yml names."""

    schema: Path
    records: Path
    data: Path
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Project:
    """dinmo.yml under one dbt target. `orgs` holds every destination that has an entry for the target."""

    root: Path
    target: str | None
    state_location: Path  # a folder of this machine, whatever keeps the state
    state_bucket: str | None  # a location such as s3://bucket/prefix
    state_warehouse_schema: str | None
    history_s: float  # how long runs are kept
    emulator: EmulatorConfig
    orgs: Mapping[str, Org]
    targets: Mapping[str, tuple[str, ...]]  # destination -> the dbt targets it has an entry for
    defaults: Mapping[str, Any]
    notes: tuple[Problem, ...] = ()
    channels: tuple[Channel, ...] = ()
    silent_channels: tuple[str, ...] = ()  # their places: empty here, as their own default allows
    digest: Digest | None = None
    shared_orgs: tuple[Problem, ...] = ()  # orgs of the chosen target that another target leads to, by mistake perhaps
    may_share: frozenset[str] = frozenset()  # targets that may lead to an org of the chosen target's
    places: Mapping[str, str] = field(default_factory=dict)  # dbt target: where its first org is declared
    problems: tuple[Problem, ...] = ()  # all that is wrong with entries of destinations, of every target
    broken: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)  # destination: what, for the chosen target
    written_at: Callable[[KeyPath], str] = field(default=dotted, compare=False, repr=False)  # where a key stands

    def problems_with(self, destination: str, *, where: str = "") -> tuple[Problem, ...]:
        """Why an activation can't use that destination under this target; none if it can."""
        if destination in self.orgs:
            return ()
        return self.broken.get(destination) or (self._absent(destination, where),)

    def _absent(self, destination: str, where: str) -> Problem:
        if destination not in self.targets:
            known = f"destinations in dinmo.yml: {', '.join(self.targets)}" if self.targets else "dinmo.yml has none"
            message = f"no destination {show(destination)}{declaration.did_you_mean(destination, self.targets)}"
            return Problem(NO_DESTINATION, message, where, known)
        targets = self.targets[destination]
        if self.target is None:
            return Problem(NO_TARGET, f"no dbt target was chosen for destination {show(destination)}", where)
        message = f"destination {show(destination)} has no entry for dbt target {show(self.target)}"
        message += declaration.did_you_mean(self.target, targets)
        hint = (
            f"add destinations.{destination}.targets.{self.target} to dinmo.yml; it has: {', '.join(targets) or 'none'}"
        )
        return Problem(NO_TARGET, message, where, hint)

    def org(self, destination: str) -> Org:
        """The org of a destination; ConfigError if it has none under this target."""
        if problems := self.problems_with(destination):
            raise ConfigError.of(problems)
        return self.orgs[destination]


MINIMAL = """\
destinations:
  crm:
    targets:
      dev: {org: emulator}
"""
_FOLDER = ".dinmo"
# By the scheme of a bucket's location: the extra that brings its client.
BUCKET_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_SCHEMES = "s3://, gs://, az:// (abfs://)"
_NO_CHANNEL_HERE = "set it; or write env_var('NAME', '') where it may be missing: then this channel gets nothing"


def load_project(
    project_dir: Path, *, target: str | None, env: Mapping[str, str], vars: Mapping[str, Any], offline: bool
) -> Project:
    """dinmo.yml of that dbt project under that dbt target. What is wrong with a destination's entry is in `problems`,
    and stops who uses it; of all else ConfigError is raised, with every problem found.

    Offline, an unset variable is a note and no file of a destination is looked at; the `Org`s are then good for
    their names only.
    """
    root = Path(project_dir)
    try:
        read = document.load(root / FILE_NAME)
    except FileNotFoundError:
        hint = f"dinmo-dbt init writes one, or write one there:\n\n{MINIMAL}"
        raise ConfigError(NO_DINMO_YML, f"no {FILE_NAME} beside dbt_project.yml", where=str(root), hint=hint) from None
    return _project(Reading(root, read, target, env, vars, offline))


def _project(reading: Reading) -> Project:
    raw = reading.read.value
    if not isinstance(raw, dict):
        raise ConfigError(WRONG_TYPE, f"expected a mapping, got {declaration.kind(raw)}", where=reading.read.name)
    spec, found = spec_of(reading, raw), reading.found
    if spec is None:
        raise ConfigError.of(found.problems)

    entries = [
        Entry(reading, name, target, written, target == reading.target)
        for name, destination in spec.destinations.items()
        for target, written in destination.targets.items()
    ]
    orgs: dict[str, Org] = {}
    for entry in entries:
        org = org_of(entry)
        if entry.chosen and org and not found.of(entry.destination, reading.target):
            orgs[entry.destination] = org
    state, bucket = _state(reading, spec.state)
    emulator = EmulatorConfig(
        schema=reading.path(spec.emulator.schema_, ("emulator", "schema")),
        records=reading.path(spec.emulator.records, ("emulator", "records")),
        data=reading.path(spec.emulator.data, ("emulator", "data")) if spec.emulator.data else state / "emulator",
        named=frozenset(name.rstrip("_") for name in spec.emulator.model_fields_set),
    )
    channels, silent = _channels(reading, spec.warnings)
    warehouse, digest = spec.state.warehouse, spec.warnings.digest
    schema = reading.rendered(warehouse.schema_, ("state", "warehouse", "schema")) if warehouse else None
    if any(not destination for destination, _ in found.owners):
        raise ConfigError.of(found.problems)
    targets, places = targets_of(raw), declared_targets(spec, reading.read.where)
    return Project(
        root=reading.root,
        target=reading.target,
        state_location=state,
        state_bucket=bucket,
        state_warehouse_schema=schema,
        history_s=spec.state.history,
        emulator=emulator,
        orgs=orgs,
        targets=targets,
        defaults=spec.defaults,
        written_at=reading.read.where,
        notes=tuple(found.notes),
        channels=channels,
        silent_channels=silent,
        digest=Digest(digest.at, digest.timezone) if digest else None,
        shared_orgs=tuple(shared_orgs(entries, spec)),
        may_share=frozenset(other for other in places if may_share(spec, reading.target, other)),
        places=places,
        problems=tuple(found.problems),
        broken={name: wrong for name in targets if (wrong := found.of(name, reading.target))},
    )


def _state(reading: Reading, spec: StateSpec) -> tuple[Path, str | None]:
    """The folder, and the location in an object store where one is given: logins stay in the folder."""
    if spec.location is not None and spec.warehouse is not None:
        reading.add(KEYS_CONFLICT, "both `location` and `warehouse` are given", ("state",), "keep one of them")
    path: KeyPath = ("state", "location")
    given = reading.rendered(spec.location or _FOLDER, path)
    if "://" in given:
        if wrong := bucket_problem(given):
            reading.add(NOT_ALLOWED, wrong, path, f"such as s3://bucket/dinmo; what there is: {_SCHEMES}")
        return reading.absolute(_FOLDER), given.rstrip("/")
    location = reading.absolute(given)
    target_folder = reading.root / "target"
    if location == target_folder or target_folder in location.parents:
        hint = "dbt clean empties that folder, and state that is lost can double an object"
        reading.add(NOT_ALLOWED, "state can't be kept under target/", path, hint)
    return location, None


def bucket_problem(location: str) -> str | None:
    """What keeps a location of an object store from being one, as a sentence; None if it is."""
    scheme, _, rest = location.partition("://")
    if scheme not in BUCKET_SCHEMES:
        return f"state can't be kept at {scheme}://"
    if "@" in rest and scheme not in ("abfs", "abfss"):
        return "a location holds no credentials"
    if not re.fullmatch(r"[^/?#\s][^?#\s]*", rest):
        return f"{declaration.show(location)} names no bucket"
    return None


def _channels(reading: Reading, spec: ChannelsSpec) -> tuple[tuple[Channel, ...], tuple[str, ...]]:
    """The channels whose URL is known, and the places of those that are switched off here. Whether a channel
    understands its URL is `channels`' to say, when asked."""
    found, silent = [], []
    for number, each in enumerate(spec.channels):
        path: KeyPath = ("warnings", "channels", number)
        if reading.switched_off(each.url):
            silent.append(declaration.dotted(path))
            continue
        url = reading.final(each.url, path, chosen=True, hint=_NO_CHANNEL_HERE)
        if url is None:
            continue
        if problem := channel_url_problem(url):
            reading.add(
                NOT_A_CHANNEL_URL, problem, path, "a webhook's https:// URL, or an Apprise URL: docs/warnings.md"
            )
        found.append(Channel(declaration.dotted(path), Secret(url.strip()), each.only is not None))
    return tuple(found), tuple(silent)
