"""The keys of dinmo.yml: their shapes, defaults and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema

from dinmo_dbt.config import declaration
from dinmo_dbt.config.declaration import Strict
from dinmo_dbt.config.when import SPAN_SCHEMA, ClockTime, TimeZone, span

FILE_NAME = "dinmo.yml"
SECRET_KEYS = ("client_secret", "access_token", "refresh_token", "password", "security_token")


def json_schema() -> dict[str, Any]:
    """JSON Schema of dinmo.yml, for editors and for docs/dinmo_yml.md."""
    schema = FileSpec.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = FILE_NAME
    declaration.without_null(schema)
    return schema


_Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


class AuthSpec(Strict):
    """How to log in. Secrets come from `env_var()` or a file."""

    flow: _Text = Field(
        description="`jwt` (client_id, username, private_key_path), `client_credentials` (client_id, client_secret), "
        "`refresh_token` (client_id, refresh_token, perhaps client_secret), `sf_cli` (alias or username of an org that "
        "the Salesforce CLI is logged in to) or `access_token` (instance_url, access_token)."
    )
    client_id: _Text | None = Field(default=None, description="Consumer key of the connected app.")
    username: _Text | None = Field(default=None, description="The integration user, for `jwt`; for `sf_cli` the CLI's.")
    private_key_path: _Text | None = Field(
        default=None, description="PEM file of mode 0600, relative to the project; `~` works."
    )
    audience: _Text | None = Field(
        default=None,
        description="`aud` of the JWT, for `jwt`. Without it: the org's own URL, and where that is refused "
        "`login.salesforce.com` or `test.salesforce.com`.",
    )
    client_secret: _Text | None = Field(default=None, description="`{{ env_var('...') }}` only.")
    client_secret_path: _Text | None = Field(default=None, description="A file that holds it, instead; mode 0600.")
    instance_url: _Text | None = Field(default=None, description="The org's URL, for `access_token`.")
    access_token: _Text | None = Field(default=None, description="`{{ env_var('...') }}` only.")
    access_token_path: _Text | None = Field(default=None, description="A file that holds it, instead; mode 0600.")
    refresh_token: _Text | None = Field(
        default=None,
        description="`{{ env_var('...') }}` only. An org that gives a new one with each login: it is kept beside the "
        "state, in `logins/`.",
    )
    refresh_token_path: _Text | None = Field(default=None, description="A file that holds it, instead; mode 0600.")
    alias: _Text | None = Field(default=None, description="Of an org of the Salesforce CLI, for `sf_cli`.")


class TargetSpec(Strict):
    """The org that a destination means under one dbt target."""

    org: Literal["emulator"] | None = Field(default=None, description="The embedded org: needs no other key.")
    login_url: _Text | None = Field(default=None, description="My Domain URL of the org; https only.")
    auth: AuthSpec | None = Field(default=None, description="How to log in.")
    organization_id: _Text | None = Field(default=None, description="Pin: any other org is refused.")
    shares_org_with: list[_Text] = Field(
        default_factory=list,
        description="Other dbt targets that lead to the same org, and are meant to: their records are never removed.",
    )
    api_share: _Text | None = Field(
        default=None,
        description="Share of the org's daily API calls that a run may use up.",
        json_schema_extra={"default": "80%"},
    )
    ca_file: _Text | None = Field(
        default=None,
        description="PEM file of the authorities that sign the host's certificate, instead of the usual ones; relative "
        "to the project. Without it `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or `SSL_CERT_FILE` counts.",
    )
    allowed_hosts: list[_Text] = Field(
        default_factory=list, description="Hosts besides Salesforce's own, such as a proxy's: a name, or `*.suffix`."
    )


class DestinationSpec(Strict):
    """A named Salesforce connection."""

    targets: dict[_Text, TargetSpec] = Field(
        description="dbt target: the org it means, so that dev never touches prod."
    )


class WarehouseStateSpec(Strict):
    schema_: _Text = Field(alias="schema", description="Schema for the state tables.")


class StateSpec(Strict):
    """Where snapshots, journal and history are kept."""

    location: _Text | None = Field(
        default=None,
        description="A local folder, relative to the project; or a bucket: `s3://…`, `gs://…`, `az://…`.",
        json_schema_extra={"default": ".dinmo"},
    )
    warehouse: WarehouseStateSpec | None = Field(
        default=None, description="Tables in the warehouse instead: DuckDB or Postgres."
    )
    history: Annotated[float, PlainValidator(span), WithJsonSchema(SPAN_SCHEMA)] = Field(
        default=90 * 86400.0,
        description="How long runs are kept; of each activation at least the last 50, and at most 10,000.",
        json_schema_extra={"default": "90 days"},
    )


class EmulatorSpec(Strict):
    """The embedded org; every path is relative to the project."""

    schema_: _Text = Field(
        default="force-app", alias="schema", description="SFDX source tree, YAML file or folder of describe JSON."
    )
    records: _Text = Field(default="emulator_records", description="Folder of starting records, one CSV per object.")
    data: _Text | None = Field(
        default=None,
        description="Where the org keeps its records.",
        json_schema_extra={"default": "<state location>/emulator"},
    )


class ChannelSpec(Strict):
    """A channel that doesn't get everything."""

    url: _Text = Field(description="`{{ env_var('...') }}` only.")
    only: Literal["critical"] | None = Field(default=None, description="`critical`: no other notices.")


class DigestSpec(Strict):
    """When the summary goes out."""

    at: ClockTime = Field(description="Time of day, `08:00`.")
    timezone: TimeZone = Field(default="UTC", description="IANA time zone of `at`.")


def channel_spec(value: object) -> ChannelSpec:
    return ChannelSpec.model_validate(value if isinstance(value, Mapping) else {"url": declaration.text(value)})


def digest_spec(value: object) -> DigestSpec:
    return DigestSpec.model_validate(value if isinstance(value, Mapping) else {"at": value})


class ChannelsSpec(Strict):
    """Where warnings go."""

    channels: list[
        Annotated[
            ChannelSpec,
            PlainValidator(channel_spec),
            WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, ChannelSpec.model_json_schema()]}),
        ]
    ] = Field(
        default_factory=list,
        description="Webhook or Apprise URLs, each `{{ env_var('...') }}`; see [warnings.md](warnings.md).",
    )
    digest: (
        Annotated[
            DigestSpec,
            PlainValidator(digest_spec),
            WithJsonSchema({"anyOf": [{"type": "string"}, DigestSpec.model_json_schema()]}),
        ]
        | None
    ) = Field(
        default=None,
        description='A summary once a day, at this time: `"08:00"` (UTC), or `{at: "08:00", timezone: Europe/Paris}`.',
    )


class FileSpec(Strict):
    """dinmo.yml, beside dbt_project.yml."""

    destinations: dict[_Text, DestinationSpec] = Field(description="Name: a Salesforce connection.")
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Any key of an activation; each activation's own keys win."
    )
    state: StateSpec = Field(default_factory=StateSpec, description="Where state is kept.")
    emulator: EmulatorSpec = Field(default_factory=EmulatorSpec, description="The embedded org.")
    warnings: ChannelsSpec = Field(default_factory=ChannelsSpec, description="Where warnings go.")
