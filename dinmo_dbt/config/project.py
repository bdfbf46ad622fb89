"""dinmo.yml: destinations per dbt target, defaults, state, emulator, channels. Only the chosen target renders.

`load_project` reads the file as `document` does, checks its shape whole, then renders `env_var()` and `var()` in the
chosen target's part and checks the rendered values. A secret comes from the environment or from a file, never from
this document.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from dinmo_dbt.codes import (
    FILE_NOT_READ,
    FLOW_NOT_OFFERED,
    HOST_NOT_ALLOWED,
    KEYS_CONFLICT,
    MISPLACED_KEY,
    NO_DESTINATION,
    NO_DINMO_YML,
    NO_TARGET,
    NOT_A_CHANNEL_URL,
    NOT_ALLOWED,
    NOT_AN_ORGANIZATION_ID,
    NOT_RENDERED,
    ORG_OF_TWO_TARGETS,
    REQUIRED_KEY,
    SECRET_FILE_OPEN,
    VARIABLE_UNSET,
    WRONG_TYPE,
    YAML_MISREAD,
)
from dinmo_dbt.config import declaration, document, template
from dinmo_dbt.config.channel import Channel, Digest, channel_url_problem
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import dotted, show
from dinmo_dbt.config.dinmo_yml import FILE_NAME, SECRET_KEYS, AuthSpec, ChannelsSpec, FileSpec, StateSpec, TargetSpec
from dinmo_dbt.durable import open_file, read_file
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.org import (
    HOST_SUFFIXES,
    LOGIN_HOSTS,
    LOOPBACK,
    Credentials,
    Org,
    Secret,
    organization_id,
    own_url,
    url_problem,
)


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
    state_location: Path
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
SECRET_FILE_BYTES_MAX = 64 * 1024


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
    return _Reading(root, read, target=target, env=env, vars=vars, offline=offline).project()


_FLOW_KEYS = {
    "jwt": ("client_id", "username", "private_key_path"),
    "client_credentials": ("client_id", "client_secret"),
    "refresh_token": ("client_id", "refresh_token"),
    "sf_cli": (),
    "access_token": ("instance_url", "access_token"),
}
_OPTIONAL_KEYS = {"jwt": ("audience",), "refresh_token": ("client_secret",), "sf_cli": ("alias", "username")}
_BY_PASSWORD = ("password",)
_NOT_OFFERED = "flow password is not offered: new orgs refuse it, and every org does from February 2027"


class _Reading:
    """One reading of one file: shape, then the templates of the chosen target, then the rendered values."""

    def __init__(
        self,
        root: Path,
        read: document.Document,
        *,
        target: str | None,
        env: Mapping[str, str],
        vars: Mapping[str, Any],
        offline: bool,
    ) -> None:
        self.root, self.read, self.target, self.offline = root, read, target, offline
        self.env, self.vars = env, vars
        self.problems: list[Problem] = []
        self.owners: list[tuple[str, str]] = []  # of each problem: the destination and target of the entry, or ''
        self.notes: list[Problem] = []
        self.silent: list[str] = []

    def add(self, code: str, message: str, path: KeyPath, hint: str = "") -> None:
        self.add_found(Problem(code, message, self.read.where(path), hint), path)

    def add_found(self, problem: Problem, path: KeyPath) -> None:
        """Once each; of a secret in the wrong place nothing more is said."""
        at_place = [p for p in self.problems if p.where == problem.where]
        if problem not in at_place and not any(p.code == MISPLACED_KEY for p in at_place):
            self.problems.append(problem)
            self.owners.append(_owner(path))

    def project(self) -> Project:
        raw = self.read.value
        if not isinstance(raw, dict):
            raise ConfigError(WRONG_TYPE, f"expected a mapping, got {declaration.kind(raw)}", where=self.read.name)
        for place, value in _scalars(raw, ()):
            self.check_scalar(place, value)
        spec = self.shape(raw)
        for place, value in _scalars(raw, ()):
            line = self.read.where(place).partition(": ")[0]
            is_told = any(problem.where.startswith(f"{line}:") for problem in self.problems)
            if not is_told and (text := self.read.misread.get(place)):
                told, hint = declaration.misread(text, value)
                self.add(YAML_MISREAD, told, place, hint)
        if spec is None:
            raise ConfigError.of(self.problems)

        orgs: dict[str, Org] = {}
        for name, destination in spec.destinations.items():
            for target, written in destination.targets.items():
                path: KeyPath = ("destinations", name, "targets", target)
                org = self.org(written, name, target, path)
                if target == self.target and org and not self.wrong_with(name):
                    orgs[name] = org
        state = self.state(spec.state)
        emulator = EmulatorConfig(
            schema=self.path(spec.emulator.schema_, ("emulator", "schema")),
            records=self.path(spec.emulator.records, ("emulator", "records")),
            data=self.path(spec.emulator.data, ("emulator", "data")) if spec.emulator.data else state / "emulator",
            named=frozenset(name.rstrip("_") for name in spec.emulator.model_fields_set),
        )
        channels = self.channels(spec.warnings)
        warehouse, digest = spec.state.warehouse, spec.warnings.digest
        schema = self.rendered(warehouse.schema_, ("state", "warehouse", "schema")) if warehouse else None
        if any(not destination for destination, _ in self.owners):
            raise ConfigError.of(self.problems)
        entries = {name: _mapping(_mapping(each).get("targets")) for name, each in self.destinations(raw).items()}
        return Project(
            root=self.root,
            target=self.target,
            state_location=state,
            state_warehouse_schema=schema,
            history_s=spec.state.history,
            emulator=emulator,
            orgs=orgs,
            targets={name: tuple(targets) for name, targets in entries.items()},
            defaults=spec.defaults,
            written_at=self.read.where,
            notes=tuple(self.notes),
            channels=channels,
            silent_channels=tuple(self.silent),
            digest=Digest(digest.at, digest.timezone) if digest else None,
            shared_orgs=tuple(self.shared_orgs(spec)),
            may_share=frozenset(other for other in self.declared_targets(spec) if self.may_share(spec, other)),
            places=self.declared_targets(spec),
            problems=tuple(self.problems),
            broken={name: found for name in entries if (found := self.wrong_with(name))},
        )

    def wrong_with(self, destination: str) -> tuple[Problem, ...]:
        """What keeps the chosen target's entry of a destination from being used."""
        owners = ((destination, ""), (destination, self.target))
        return tuple(p for p, owner in zip(self.problems, self.owners, strict=True) if owner in owners)

    @staticmethod
    def destinations(raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return _mapping(raw.get("destinations"))

    def declared_targets(self, spec: FileSpec) -> dict[str, str]:
        """Each dbt target, and where its first org is declared."""
        found: dict[str, str] = {}
        for name, destination in spec.destinations.items():
            for target in destination.targets:
                found.setdefault(target, self.read.where(("destinations", name, "targets", target)))
        return found

    def may_share(self, spec: FileSpec, other: str) -> bool:
        """Whether the chosen target's entries, or the other's, name one another in `shares_org_with`."""
        named = {(self.target, other), (other, self.target)}
        return any(
            (target, name) in named
            for destination in spec.destinations.values()
            for target, written in destination.targets.items()
            for name in written.shares_org_with
        )

    def shared_orgs(self, spec: FileSpec) -> Iterator[Problem]:
        """Entries of other targets that lead to an org of the chosen one, as far as it can be told from their texts:
        what another target renders is not known here, so nothing is said of it."""
        entries = [
            (("destinations", name, "targets", target), target, written)
            for name, destination in spec.destinations.items()
            for target, written in destination.targets.items()
        ]
        told = set()
        for path, target, written in entries:
            for other_path, other, beside in entries:
                if target != self.target or other == target or other in told or self.may_share(spec, other):
                    continue
                pin, other_pin = (
                    self.organization_id(*each) for each in ((written, path, True), (beside, other_path, False))
                )
                if pin and other_pin and pin != other_pin:
                    continue
                if self.leads_to(written, path, chosen=True) & self.leads_to(beside, other_path, chosen=False):
                    told.add(other)
                    message = (
                        f"dbt targets {show(target)} and {show(other)} lead to one org: each would send its rows over "
                        f"the other's. {show(other)} is at {self.read.where(other_path)}"
                    )
                    hint = (
                        f"give one of them an org of its own. If it is meant: shares_org_with: [{other}] here; a "
                        "record that the other target holds is never removed then"
                    )
                    yield Problem(ORG_OF_TWO_TARGETS, message, self.read.where(path), hint)

    def leads_to(self, spec: TargetSpec, path: KeyPath, *, chosen: bool) -> set[str]:
        """What tells the org of an entry: nothing where that is not known. A login host that every org has tells no
        org without a user, and of a proxy's host nothing is known."""
        if spec.org:
            return {spec.org}
        pin = self.organization_id(spec, path, chosen)
        found = {pin} if pin else set()
        auth = spec.auth
        username = self.final(auth.username, (*path, "auth", "username"), chosen) if auth and auth.username else None
        instance = auth.instance_url if auth else None
        if auth and auth.flow == "sf_cli":
            name = self.final(auth.alias or auth.username or "", (*path, "auth", "alias"), chosen)
            found |= {f"org {name} of the Salesforce CLI"} if name is not None else set()
        for text, key in ((spec.login_url, ("login_url",)), (instance, ("auth", "instance_url"))):
            url = self.final(text, (*path, *key), chosen) if text else None
            parts = urlsplit(url or "")
            host = parts.hostname or ""
            if host.endswith(HOST_SUFFIXES) or host in LOOPBACK:
                found.add(parts.netloc.lower())
            elif host in LOGIN_HOSTS and username:
                found.add(f"{username}@{host}")
        return found

    def check_scalar(self, path: KeyPath, value: object) -> None:
        """What holds for any value of the file, rendered or not: no literal secret, no template but ours."""
        text = value if isinstance(value, str) else ""
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        in_defaults = path[:1] == ("defaults",)
        channel = path[:2] == ("warnings", "channels") and key != "only"
        secret = (key in SECRET_KEYS or channel) and not in_defaults
        if secret and value is not None and not template.only_from_environment(text):
            what = "a channel" if channel else show(key)
            hint = "write \"{{ env_var('NAME') }}\" and set NAME where dinmo-dbt runs" + (
                f", or use {key}_path" if key in ("client_secret", "access_token", "refresh_token") else ""
            )
            self.add(MISPLACED_KEY, f"{what} is a secret: it must come from env_var(), without a default", path, hint)
        elif declaration.holds_secret(text):
            self.add(MISPLACED_KEY, "this text looks like a secret", path, "write \"{{ env_var('NAME') }}\"")
        elif template.is_template(text) and not in_defaults:
            try:
                template.check(text)
            except template.NotAllowed as error:
                self.add(NOT_RENDERED, str(error), path, _TEMPLATE_HINT)

    def shape(self, raw: Mapping[str, Any]) -> FileSpec | None:
        """The file as its spec, without the entries of destinations that are wrong; None when more is wrong."""
        skipped = self.by_password(raw)
        try:
            return FileSpec.model_validate(raw)
        except ValidationError as error:
            for details, problem in zip(
                error.errors(include_url=False),
                declaration.problems(error, model=FileSpec, where=self.read.where),
                strict=True,
            ):
                if not any(details["loc"][: len(path)] == path for path in skipped):
                    self.add_found(problem, details["loc"])
        try:
            return FileSpec.model_validate(_without(raw, set(self.owners)))
        except ValidationError:
            return None

    def by_password(self, raw: Mapping[str, Any]) -> list[KeyPath]:
        """Report logins by password, once each; their other keys are then not looked at."""
        found: list[KeyPath] = []
        for name, destination in _mapping(raw.get("destinations")).items():
            for target, written in _mapping(_mapping(destination).get("targets")).items():
                flow = _mapping(_mapping(written).get("auth")).get("flow")
                path: KeyPath = ("destinations", name, "targets", target, "auth")
                if isinstance(flow, str) and flow in _BY_PASSWORD:
                    self.add(FLOW_NOT_OFFERED, _NOT_OFFERED, (*path, "flow"), f"use one of: {_FLOWS}")
                    found.append(path)
        return found

    def org(self, spec: TargetSpec, destination: str, target: str, path: KeyPath) -> Org | None:
        """The org of one target; of another than the chosen one only the keys and the plain texts are checked."""
        chosen = target == self.target
        if spec.org:
            others = sorted(spec.model_fields_set - {"org", "shares_org_with"})
            if others:
                self.add(
                    KEYS_CONFLICT, f"`org: emulator` needs no other key: remove {declaration.listed(others)}", path
                )
            return Org(destination, target, None)
        if spec.auth is None:
            hint = "auth: {flow: jwt, client_id: ..., username: ..., private_key_path: ...}, or org: emulator"
            self.add(REQUIRED_KEY, "'auth' is required, or `org: emulator`", path, hint)
            return None
        before = len(self.problems)
        credentials = self.credentials(spec, spec.auth, path, chosen)
        pin = self.organization_id(spec, path, chosen)
        share = self.api_share(spec, path, chosen)
        ca_file = self.ca_file(spec, (*path, "ca_file"), chosen)
        if len(self.problems) > before:
            return None
        hosts = tuple(spec.allowed_hosts)
        return Org(destination, target, credentials, pin, share, ca_file, hosts)

    def credentials(self, spec: TargetSpec, auth: AuthSpec, path: KeyPath, chosen: bool) -> Credentials | None:
        auth_path: KeyPath = (*path, "auth")
        flow = self.final(auth.flow, (*auth_path, "flow"), chosen)
        if flow is None:
            return None
        if flow not in _FLOW_KEYS:
            code, message = NOT_ALLOWED, f"{show(flow)} is not a flow{declaration.did_you_mean(flow, _FLOW_KEYS)}"
            if flow in _BY_PASSWORD:
                code, message = FLOW_NOT_OFFERED, _NOT_OFFERED
            self.add(code, message, (*auth_path, "flow"), f"use one of: {_FLOWS}")
            return None
        allowed = {"flow", *_keys(flow)} | {f"{key}_path" for key in _keys(flow) if key in SECRET_KEYS}
        for key in sorted(auth.model_fields_set - allowed):
            self.add(KEYS_CONFLICT, f"flow {flow} has no use for {show(key)}", (*auth_path, key))
        login_url = self.url(spec.login_url, (*path, "login_url"), spec, chosen)
        if auth.alias and auth.username and flow == "sf_cli":
            self.add(KEYS_CONFLICT, "both 'alias' and 'username' are given", auth_path, "keep one of them")
        if flow not in ("access_token", "sf_cli") and spec.login_url is None:
            self.add(
                REQUIRED_KEY, f"flow {flow} needs 'login_url'", path, 'login_url: "https://acme.my.salesforce.com"'
            )
        if flow == "client_credentials" and urlsplit(login_url).hostname in LOGIN_HOSTS:
            message = (
                "flow client_credentials needs the org's own My Domain URL here (OAuth 2.0 Client Credentials Flow)"
            )
            self.add(HOST_NOT_ALLOWED, message, (*path, "login_url"))
        return Credentials(
            flow=flow,
            login_url=login_url,
            client_id=self.needed(auth, "client_id", flow, auth_path, chosen),
            username=self.needed(auth, "username", flow, auth_path, chosen),
            audience=self.url(auth.audience, (*auth_path, "audience"), spec, chosen) if flow == "jwt" else "",
            private_key_path=self.key_file(auth, flow, auth_path, chosen),
            client_secret=self.secret(auth, "client_secret", flow, auth_path, chosen),
            instance_url=self.url(
                self.needed(auth, "instance_url", flow, auth_path, chosen) and auth.instance_url,
                (*auth_path, "instance_url"),
                spec,
                chosen,
            ),
            access_token=self.secret(auth, "access_token", flow, auth_path, chosen),
            refresh_token=self.secret(auth, "refresh_token", flow, auth_path, chosen),
            alias=self.needed(auth, "alias", flow, auth_path, chosen),
        )

    def needed(self, auth: AuthSpec, key: str, flow: str, path: KeyPath, chosen: bool) -> str:
        """The rendered value of a key that the flow needs or may have; empty for any other."""
        if key not in _keys(flow):
            return ""
        text: str | None = getattr(auth, key)
        if text is None:
            if key in _FLOW_KEYS[flow]:
                self.add(REQUIRED_KEY, f"flow {flow} needs {show(key)}", path)
            return ""
        return self.final(text, (*path, key), chosen) or ""

    def secret(self, auth: AuthSpec, key: str, flow: str, path: KeyPath, chosen: bool) -> Secret | None:
        """A secret from its key or, by `<key>_path`, from a file; not read offline."""
        if key not in _keys(flow):
            return None
        by_file: str | None = getattr(auth, f"{key}_path")
        if by_file is None:
            text = self.needed(auth, key, flow, path, chosen)
            return Secret(text.strip()) if text or key in _FLOW_KEYS[flow] else None
        if getattr(auth, key) is not None:
            self.add(KEYS_CONFLICT, f"both {show(key)} and '{key}_path' are given", path, "keep one of them")
        file = self.file(by_file, (*path, f"{key}_path"), chosen)
        if file is None or self.offline or not chosen:
            return Secret("")
        try:
            text = read_file(file, SECRET_FILE_BYTES_MAX).decode().strip()
        except (OSError, UnicodeDecodeError):
            self.add(FILE_NOT_READ, "the file can't be read as text", (*path, f"{key}_path"))
            return None
        if not text:
            self.add(FILE_NOT_READ, "the file is empty", (*path, f"{key}_path"))
        return Secret(text)

    def key_file(self, auth: AuthSpec, flow: str, path: KeyPath, chosen: bool) -> Path | None:
        if not self.needed(auth, "private_key_path", flow, path, chosen):
            return None
        return self.file(auth.private_key_path or "", (*path, "private_key_path"), chosen)

    def file(self, text: str, path: KeyPath, chosen: bool) -> Path | None:
        """A file with a secret in it. Online it must exist, and be nobody's but its owner's and at most its group's."""
        final = self.final(text, path, chosen)
        if not final or not chosen:
            return None
        file = self.absolute(final)
        if self.offline:
            return file
        if not self.is_readable(file, path):
            return None
        if (
            file.stat().st_mode & 0o027
        ):  # a group may read it: a mounted secret of a container that isn't root needs that
            hint = "chmod 600 it; a mounted secret takes a mode: 0400 or 0440 (Kubernetes: defaultMode)"
            self.add(SECRET_FILE_OPEN, "other users of this machine may read or change this file", path, hint)
        return file

    def ca_file(self, spec: TargetSpec, path: KeyPath, chosen: bool) -> Path | None:
        final = self.final(spec.ca_file, path, chosen) if spec.ca_file else None
        if not final or not chosen:
            return None
        file = self.absolute(final)
        if not self.offline:
            self.is_readable(file, path)
        return file

    def is_readable(self, file: Path, path: KeyPath) -> bool:
        """Whether there is a file to read; else it is told why not."""
        try:
            os.close(open_file(file))
        except (FileNotFoundError, NotADirectoryError):
            self.add(FILE_NOT_READ, "no such file", path, "a relative path starts at the dbt project")
        except OSError as error:
            said = (error.strerror or "").lower()
            self.add(FILE_NOT_READ, f"the file can't be read: {said}", path)
        else:
            return True
        return False

    def url(self, text: str | None, path: KeyPath, spec: TargetSpec, chosen: bool) -> str:
        final = self.final(text, path, chosen) if text else None
        if not final:
            return ""
        if message := url_problem(final, tuple(spec.allowed_hosts)):
            shown = (
                f"{show(urlsplit(final).hostname or '')}: "
                if final == text and message == "not a Salesforce host"
                else ""
            )
            own = own_url(final) if final == text else ""
            hint = (
                "expected https://<domain>.my.salesforce.com, login.salesforce.com or test.salesforce.com; "
                "other hosts go under `allowed_hosts`"
            )
            self.add(HOST_NOT_ALLOWED, shown + message, path, f"the org's own is {own}" if own else hint)
        return final.rstrip("/")

    def organization_id(self, spec: TargetSpec, path: KeyPath, chosen: bool) -> str | None:
        final = self.final(spec.organization_id, (*path, "organization_id"), chosen) if spec.organization_id else None
        if not final:
            return None
        expanded = organization_id(final)
        if expanded is None:
            hint = "15 or 18 characters that start with 00D: Setup > Company Information > Organization ID"
            self.add(
                NOT_AN_ORGANIZATION_ID,
                "not a Salesforce organization id, or mistyped",
                (*path, "organization_id"),
                hint,
            )
        return expanded

    def api_share(self, spec: TargetSpec, path: KeyPath, chosen: bool) -> Decimal:
        final = self.final(spec.api_share, (*path, "api_share"), chosen) if spec.api_share else None
        match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", final) if final else None
        share = Decimal(match[1]) if match else None
        if final and (share is None or not 0 < share <= 100):
            self.add(
                NOT_ALLOWED, "expected a percentage above 0% and up to 100%", (*path, "api_share"), "api_share: 80%"
            )
        return share or Decimal(80)

    def state(self, spec: StateSpec) -> Path:
        if spec.location is not None and spec.warehouse is not None:
            self.add(KEYS_CONFLICT, "both `location` and `warehouse` are given", ("state",), "keep one of them")
        location = self.path(spec.location or ".dinmo", ("state", "location"))
        target_folder = self.root / "target"
        if location == target_folder or target_folder in location.parents:
            hint = "dbt clean empties that folder, and state that is lost can double an object"
            self.add(NOT_ALLOWED, "state can't be kept under target/", ("state", "location"), hint)
        return location

    def channels(self, spec: ChannelsSpec) -> tuple[Channel, ...]:
        """The channels whose URL is known. Whether a channel understands its URL is `channels`' to say, when asked."""
        found = []
        for number, each in enumerate(spec.channels):
            path: KeyPath = ("warnings", "channels", number)
            if self.switched_off(each.url):
                self.silent.append(declaration.dotted(path))
                continue
            url = self.final(each.url, path, chosen=True, hint=_NO_CHANNEL_HERE)
            if url is None:
                continue
            if problem := channel_url_problem(url):
                self.add(
                    NOT_A_CHANNEL_URL, problem, path, "a webhook's https:// URL, or an Apprise URL: docs/warnings.md"
                )
            found.append(Channel(declaration.dotted(path), Secret(url.strip()), each.only is not None))
        return tuple(found)

    def switched_off(self, text: str) -> bool:
        """Whether the text is empty here and its own default says that it may be: env_var('NAME', '')."""
        if not template.only_from_environment(text):
            return False
        here, nowhere = (template.render(text, env=env, vars=self.vars) for env in (self.env, {}))
        return not here.text.strip() and not nowhere.unset

    def path(self, text: str, path: KeyPath) -> Path:
        return self.absolute(self.rendered(text, path))

    def absolute(self, text: str) -> Path:
        """`~` is HOME, and a relative path starts at the project."""
        home = self.env.get("HOME", "")
        if home and (text == "~" or text.startswith("~/")):
            text = home + text[1:]
        return self.root / text

    def final(self, text: str, path: KeyPath, chosen: bool, hint: str = "") -> str | None:
        """The text that will be used, or None while it is not known: another target's, or unset offline."""
        if not template.is_template(text):
            return text
        if not chosen:
            return None
        rendered = self.rendered(text, path, hint)
        return None if rendered == text else rendered

    def rendered(self, text: str, path: KeyPath, hint: str = "") -> str:
        """The text rendered; as it was written when a variable is unset, which is said."""
        if not template.is_template(text):
            return text
        try:
            result = template.render(text, env=self.env, vars=self.vars)
        except template.NotAllowed as error:
            self.add(NOT_RENDERED, str(error), path, _TEMPLATE_HINT)
            return text
        if result.unset:
            problem = Problem(VARIABLE_UNSET, f"{result.unset} is not set", self.read.where(path), hint)
            if not self.offline:
                self.add_found(problem, path)
            elif problem not in self.notes:
                self.notes.append(problem)
            return text
        if not result.text.strip() or "\0" in result.text:
            self.add(VARIABLE_UNSET, "the rendered value is empty", path, hint)
            return text
        return result.text


def _keys(flow: str) -> tuple[str, ...]:
    return (*_FLOW_KEYS[flow], *_OPTIONAL_KEYS.get(flow, ()))


_FLOWS = ", ".join(_FLOW_KEYS)
_NO_CHANNEL_HERE = "set it; or write env_var('NAME', '') where it may be missing: then this channel gets nothing"
_TEMPLATE_HINT = "write {{ env_var('NAME') }} or {{ var('name') }}"


def _owner(path: KeyPath) -> tuple[str, str]:
    """The destination and dbt target whose entry holds that place; '' for a whole destination, and for none."""
    match path:
        case ("destinations", str(name), "targets", str(target), *_):
            return name, target
        case ("destinations", str(name), *_):
            return name, ""
    return "", ""


def _without(raw: Mapping[str, Any], owners: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The file without these entries."""
    kept: dict[str, Any] = {}
    for name, destination in _mapping(raw.get("destinations")).items():
        if (name, "") not in owners:
            targets = _mapping(_mapping(destination).get("targets"))
            kept[name] = {**destination, "targets": {t: e for t, e in targets.items() if (name, t) not in owners}}
    return {**raw, "destinations": kept}


def _scalars(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _scalars(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _scalars(inner, (*path, i))
    else:
        yield path, value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
