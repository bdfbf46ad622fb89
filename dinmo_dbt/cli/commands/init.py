"""init: dinmo.yml, and a first activation for a model. What would be written is shown before, and nothing that
somebody wrote is changed."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli import completing
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import INIT_CANT
from dinmo_dbt.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from dinmo_dbt.artifacts.manifest import Node
    from dinmo_dbt.destination import ObjectSchema
    from dinmo_dbt.salesforce import SalesforceDestination
    from dinmo_dbt.scaffold.proposal import ModelColumns
    from dinmo_dbt.scaffold.stub import Stub

_SCHEMA_FOLDER = "emulator_schema"


def init(
    flags: Flags,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Model, seed or snapshot to write a first activation for.",
            autocompletion=completing.model,
        ),
    ] = None,
    object_name: Annotated[
        str | None, typer.Option("--object", help="Salesforce object (default: the one named like the model).")
    ] = None,
    destination: Annotated[
        str | None, typer.Option("--destination", "-d", help="Destination of dinmo.yml (default: the only one; crm).")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Unique column (default: by unique and not_null tests).")
    ] = None,
    match: Annotated[
        str | None, typer.Option("--match", metavar="COLUMN=FIELD", help="What identifies the record.")
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="insert, update or upsert (default: upsert).")] = None,
    login_url: Annotated[
        str | None, typer.Option("--login-url", metavar="URL", help="A real org's My Domain (default: the emulator).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
) -> None:
    """Write dinmo.yml, and a first activation for a model.

    Columns and fields are paired by their names, the key comes from the model's tests, and the match is an external
    id that a column is named like. What is written is shown first; nothing that stands is changed. Where the local
    org has no such object, one is made after the model's columns.

    \b
    Examples:
      dinmo-dbt init
      dinmo-dbt init dim_customers
      dinmo-dbt init dim_customers --object Account --match account_number=AccountNumber__c --yes
      dinmo-dbt init --target prod --login-url https://acme.my.salesforce.com
    """
    console = Console()
    from dinmo_dbt.scaffold.stub import api_name

    with Session(flags, console) as session:
        url = _real_org(session, destination or "crm", login_url) if login_url else None
        files = {} if (session.root / "dinmo.yml").exists() else _dinmo_yml(session, destination or "crm", url)
        if files and not _write(console, session.root, files, yes=yes):
            return
        if model is None:
            console.answer([] if files else ["dinmo.yml is there, and is left as it is"])
            console.answer(["next: dinmo-dbt init MODEL writes a model's first activation; docs/meta.md has every key"])
            return
        session.parse_if_changed()
        if session.unparsed is not None:
            raise ConfigError.of([session.unparsed])
        node = _node(session, model)
        columns = _columns(session, node)
        name = _destination(session, destination)
        keys = tuple(key or ()) or node.primary_key or _asked("--key", f"the column that is unique in {node.name}")
        _ = [_known(column, columns, "--key") for column in keys]
        pair = _pair(match, columns)
        found = pair or ({keys[0]: api_name(keys[0])} if len(keys) == 1 else {})
        made, described, org = _object(session, name, node, object_name, columns, found)
        files, by_hand = _activation(session, node, columns, described, org, keys, name, mode or "", pair)
        if made is not None:
            files |= {session.project.emulator.schema / f"{described.name}.yml": (None, made.text)}
        is_written = not files or _write(console, session.root, files, yes=yes)
        if by_hand is not None:
            raise by_hand
        if is_written:
            console.answer(["next: dinmo-dbt validate --online, dinmo-dbt plan, and dinmo-dbt sync"])


_Files = dict[Path, tuple[str | None, str]]  # each file's text before (None: it is not there), and after


def _dinmo_yml(session: Session, destination: str, login_url: str | None) -> _Files:
    """The file for the chosen target, with what goes into it for the profile's others; and a place for the objects of
    the local org."""
    from dinmo_dbt.warehouse import targets_of

    flags, chosen = session.flags, session.target[1]
    targets = targets_of(session.root, flags.profiles_dir, flags.profile, os.environ, vars=session.vars)
    others = [name for name in targets if name != chosen] or ([] if login_url else ["prod"])
    target = _inline(chosen)
    local = f"      {target}: {{org: emulator}}  # a Salesforce on this machine, which each command starts and stops"
    lines = [
        "# Where Salesforce is, for dinmo-dbt. Every key: docs/dinmo_yml.md",
        "destinations:",
        f"  {_inline(destination)}:  # a name of yours, which activations give as their destination",
        "    targets:  # an org for each dbt target, so that a dev build never reaches production",
        *([f"      {target}:", *_real(login_url)] if login_url else [local]),
    ]
    for name in map(_inline, others):
        if login_url:
            lines.append(f"      # {name}: {{org: emulator}}  # a Salesforce on this machine")
        else:
            lines += [f"      # {name}:  # a real org: docs/salesforce-setup.md", *_commented(_real(None))]
    files: _Files = {session.root / "dinmo.yml": (None, "\n".join(lines) + "\n")}
    folder = session.root / _SCHEMA_FOLDER
    if login_url or (session.root / "force-app").exists():
        return files
    lines += ["emulator:", f"  schema: {_SCHEMA_FOLDER}  # the objects of the local org"]
    files = {session.root / "dinmo.yml": (None, "\n".join(lines) + "\n")}
    if folder.exists():
        return files
    origin = _origin(destination, next(iter(others), chosen))
    return files | {folder / "objects.yml": (None, _EXAMPLE.format(origin=origin))}


_EXAMPLE = """\
# What the local org has beside Account, Contact, Lead, Opportunity and Case. All files of this folder are read.
# A real org's own objects: {origin} --object Account
objects: {{}}
#  Customer__c:
#    fields:
#      Customer_Id__c: {{type: Text, length: 40, unique: true, external_id: true}}
"""


def _origin(destination: str, target: str) -> str:
    """The command that takes over a real org's objects."""
    return f"dinmo-dbt emulator import --from {shlex.quote(f'org:{destination}')} --target {shlex.quote(target)}"


def _real_org(session: Session, destination: str, login_url: str) -> str:
    """The address as dinmo.yml has it. AuthError DB603 if it can be none; UsageError DB818 if dinmo.yml is there."""
    from dinmo_dbt.org import own_url
    from dinmo_dbt.salesforce.hosts import checked_url

    url = own_url(login_url) or checked_url(login_url)
    if (session.root / "dinmo.yml").exists():
        lines = [f"{_inline(session.target[1])}:", *(line[6:] for line in _real(url))]
        raise UsageError(
            INIT_CANT,
            "dinmo.yml is there, and init changes nothing in it",
            where=str(session.root / "dinmo.yml"),
            hint="\n".join([f"write it there, under destinations.{destination}.targets:", *lines]),
        )
    return url


def _inline(name: str) -> str:
    from dinmo_dbt.scaffold.proposal import inline

    return inline(name)


def _real(login_url: str | None) -> list[str]:
    return [
        f'        login_url: "{login_url or "https://YOUR-DOMAIN.my.salesforce.com"}"',
        "        auth:",
        "          flow: jwt  # a key pair; client_credentials takes a client_secret in the place of user and key",
        "          client_id: \"{{ env_var('SF_CLIENT_ID') }}\"",
        "          username: \"{{ env_var('SF_USERNAME') }}\"",
        "          private_key_path: \"{{ env_var('SF_PRIVATE_KEY_PATH') }}\"",
    ]


def _commented(lines: Sequence[str]) -> list[str]:
    return [f"      # {line[6:]}" for line in lines]


def _node(session: Session, name: str) -> Node:
    """The model, seed or snapshot of the root project."""
    nodes = [node for node in session.manifest.nodes.values() if node.is_latest]
    found = [node for node in nodes if node.name == name]
    if not found:
        from dinmo_dbt.config.declaration import near

        close = near(name, sorted({node.name for node in nodes}), count=3)
        guess = f"did you mean {' or '.join(close)}? Else " if close else ""
        raise UsageError(
            INIT_CANT, f"dbt's manifest has no model {name}", hint=f"{guess}run dbt parse, and then this again"
        )
    if found[0].block is not None:
        raise UsageError(
            INIT_CANT,
            f"{name} declares an activation already",
            where=found[0].meta_path,
            hint="add another one there by hand: docs/meta.md",
        )
    return found[0]


def _columns(session: Session, node: Node) -> ModelColumns:
    """The relation's own columns where it is built, else those that the project documents."""
    import pyarrow as pa

    from dinmo_dbt.errors import DinmoError
    from dinmo_dbt.scaffold.proposal import ModelColumns

    try:
        relation = session.warehouse.schema(node.relation_name)
    except DinmoError as error:
        if not node.columns:
            error.add_hint(f"or document the columns of {node.name} in its YAML, and run dbt parse")
            raise
        session.console.answer([f"{node.name} is not built yet: its documented columns are used, without types"])
        return ModelColumns(node.columns)
    if node.current:  # dbt's own columns of a snapshot tell versions of a row, not what it is
        kept = [field for field in relation if not field.name.lower().startswith("dbt_")]
        relation = pa.schema(kept)
    return ModelColumns(tuple(relation.names), relation)


def _destination(session: Session, name: str | None) -> str:
    project = session.project
    if name is None:
        if len(project.orgs) > 1:
            return _asked("--destination", f"one of {', '.join(project.orgs)}")[0]
        name = next(iter(project.orgs or project.targets), "")
    if problems := project.problems_with(name):
        raise ConfigError.of(problems)
    return name


def _object(
    session: Session, destination: str, node: Node, given: str | None, columns: ModelColumns, match: Mapping[str, str]
) -> tuple[Stub | None, ObjectSchema, SalesforceDestination]:
    """The object; where the local org lacks it, one after the model's columns."""
    from dinmo_dbt.scaffold.proposal import new_object_for, object_for
    from dinmo_dbt.scaffold.stub import stub

    org, is_local = session.destination(destination), session.project.org(destination).is_emulator
    names = {each.name.lower(): each.name for each in org.objects() if each.createable or each.updateable}
    name = given or object_for(node.name, names.values())
    if name is None:
        what = "the object that the rows belong in; dinmo-dbt org objects lists them"
        if is_local:
            what += f", and a new one, such as {new_object_for(node.name)}, is made in the local org"
        name = _asked("--object", what)[0]
    if name.lower() in names or not is_local or not name.endswith("__c") or columns.types is None:
        return None, org.describe(names.get(name.lower(), name)), org
    others = [each for each in session.project.targets.get(destination, ()) if each != session.target[1]]
    made = stub(name, columns.types, match, _origin(destination, next(iter(others), "prod")))
    return made, made.schema, org


def _activation(
    session: Session,
    node: Node,
    columns: ModelColumns,
    schema: ObjectSchema,
    org: SalesforceDestination,
    keys: Sequence[str],
    destination: str,
    mode: str,
    match: Mapping[str, str],
) -> tuple[_Files, UsageError | None]:
    """The model's properties file with the block in it; or what to write by hand, where lines alone can't do it."""
    from dinmo_dbt.scaffold import insertion
    from dinmo_dbt.scaffold.proposal import propose

    proposal = propose(
        node, node.meta_path, columns, schema, org.describe, key=keys, destination=destination, mode=mode, match=match,
        where=" and ".join(node.current),
    )  # fmt: skip
    lines = proposal.lines()
    if node.yaml_file == node.file:  # no properties yet
        path = (session.root / node.file).with_suffix(".yml")
        if path.exists():
            return {}, _by_hand(node.name, path, lines)
        return {path: (None, insertion.new_file(_inline(node.name), f"{node.resource_type}s", lines))}, None
    path = session.root / node.yaml_file
    before = path.read_bytes().decode("utf-8")
    after = insertion.inserted(before, node.name, lines)
    if after is None:
        return {}, _by_hand(node.name, path, lines)
    return {path: (before, after)}, None


def _by_hand(model: str, path: Path, lines: Sequence[str]) -> UsageError:
    return UsageError(
        INIT_CANT,
        f"the activation of {model} can't be added without changing what stands there",
        where=str(path),
        hint="\n".join([f"write it under config.meta of {model}:", *lines]),
    )


def _pair(text: str | None, columns: ModelColumns) -> dict[str, str]:
    if text is None:
        return {}
    column, equals, field = text.partition("=")
    if not equals or not column or not field:
        raise UsageError(
            INIT_CANT, "--match is not a column and a field", hint="write --match customer_id=Customer_Id__c"
        )
    return {_known(column.strip(), columns, "--match"): field.strip()}


def _known(column: str, columns: ModelColumns, flag: str) -> str:
    if column not in columns.names:
        from dinmo_dbt.config.declaration import near

        close = near(column, columns.names, count=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has: {', '.join(columns.names)}"
        raise UsageError(INIT_CANT, f"{flag}: the model has no column {column}", hint=hint)
    return column


def _asked(flag: str, what: str) -> tuple[str, ...]:
    """What can't be found out: from the terminal, or from the flag."""
    if not _is_asked():
        raise UsageError(INIT_CANT, f"{flag} is not given: {what}", hint=f"give it with {flag}")
    return (typer.prompt(f"{flag} ({what})"),)


def _is_asked() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _write(console: Console, root: Path, files: _Files, *, yes: bool) -> bool:
    """Show what would be written, and write it if that is wanted; whether it was."""
    for path, (before, after) in files.items():
        name = _name(path, root)
        console.answer(
            difflib.unified_diff(
                (before or "").splitlines(),
                after.splitlines(),
                "nothing" if before is None else name,
                name,
                lineterm="",
            )
        )
    console.answer([""])
    if not yes:
        if not _is_asked():
            console.answer(["nothing is written: --yes writes it"])
            return False
        if not typer.confirm("Write it?", default=True):
            console.answer(["nothing is written"])
            return False
    for path, (before, after) in files.items():
        _put(path, before, after)
        console.answer([f"{'wrote' if before is None else 'changed'} {_name(path, root)}"])
    return True


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _put(path: Path, before: str | None, after: str) -> None:
    """A new file, or one with lines added, whole; never over what somebody wrote meanwhile."""
    from dinmo_dbt.durable import whole_file

    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    stands = path.read_bytes().decode("utf-8") if path.exists() else None
    if stands != before:
        raise UsageError(INIT_CANT, "the file was written meanwhile; it is left as it is", where=str(path))
    mask = os.umask(0)
    os.umask(mask)
    rights = path.stat().st_mode & 0o777 if before is not None else 0o666 & ~mask
    with whole_file(path) as file:
        file.write(after.encode())
    path.chmod(rights)
