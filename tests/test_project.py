"""dinmo.yml: every error once, templates, secrets, hosts, and that any bytes give a Project or an error of ours."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from config_cases import golden, told
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dinmo_dbt.config import document
from dinmo_dbt.config.channel import Channel, Digest
from dinmo_dbt.config.project import Project, load_project
from dinmo_dbt.errors import ConfigError, DinmoError
from dinmo_dbt.org import Secret, host_allowed, organization_id, own_url, url_problem

ENV = {
    "ID": "3MVG9",
    "SECRET": "0123",
    "URL": "https://acme.my.salesforce.com",
    "EVIL": "https://acme.my.salesforce.com.evil.io",
    "EMPTY": "",
    "HOOK": "https://hooks.example.com/hunter2\n",
    "PLAIN_HOOK": "http://hooks.example.com/hunter2",
    "NO_TLS": "json://hooks.example.com/hunter2",
    "TWO": "https://hooks.example.com/hunter2 https://hooks.example.com/hunter2",
    "NESTED": "{{ env_var('SECRET') }}",
    "HOME": "/home/ada",
}

JWT = """\
        login_url: https://acme.my.salesforce.com
        auth: {flow: jwt, client_id: "{{ env_var('ID') }}", username: ada@acme.io, private_key_path: key.pem}
"""


def prod(body: str, rest: str = "") -> str:
    return f"destinations:\n  crm:\n    targets:\n      dev: {{org: emulator}}\n      prod:\n{body}{rest}"


def auth(inner: str, url: str = "https://acme.my.salesforce.com") -> str:
    return prod(f"        login_url: {url}\n        auth: {{{inner}}}\n")


def load(folder: Path, text: str | bytes, **changes: Any) -> Project:
    raw = text if isinstance(text, bytes) else text.encode()
    (folder / "dinmo.yml").write_bytes(raw)
    (folder / "key.pem").touch(mode=0o600)
    options: dict[str, Any] = {"target": "prod", "env": ENV, "vars": {}, "offline": False}
    found = load_project(folder, **(options | changes))
    if found.problems:
        raise ConfigError.of(found.problems)
    return found


SECRET_FLOW = "flow: client_credentials, client_id: x, client_secret: "

WRONG: dict[str, str | bytes] = {
    "syntax": "destinations: {crm: [",
    "syntax_tab": "destinations:\n\tcrm: 1\n",
    "control_character": b"a: \x07\n",
    "not_utf8": b"a: 1\nb: \xff\n",
    "two_documents": "a: 1\n---\nb: 2\n",
    "duplicate_key": "destinations: {}\nstate: {location: a}\nstate: {location: b}\n",
    "tag": "destinations: !!python/object:os.system {}\n",
    "tag_harmless": "destinations: {}\nstate: !mine {}\n",
    "key_norway": "destinations:\n  crm:\n    targets:\n      on: {org: emulator}\n",
    "alias_bomb": "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d]\n",
    "alias_loop": "a: &a [*a]\n",
    "too_deep": "a: " + "[" * 60 + "]" * 60,
    "too_large": b"#" * 1_000_001,
    "merge_of_text": "destinations:\n  <<: text\n",
    "a_list": "- a\n- b\n",
    "empty": "",
    "unknown_keys": "destinations: {crm: {target: {}}}\ndefault: {}\n",
    "destinations_null": "destinations:\n",
    "target_without_auth": prod("        login_url: https://acme.my.salesforce.com\n"),
    "emulator_with_more": prod("        org: emulator\n        login_url: https://acme.my.salesforce.com\n"),
    "flow_unknown": auth("flow: jtw"),
    "flow_password": auth("flow: password, username: a, password: hunter2"),
    "flow_sf_cli": auth("flow: sf_cli, alias: mine, username: a@example.com"),
    "flow_refresh_token": auth("flow: refresh_token, refresh_token: \"{{ env_var('SECRET') }}\", alias: mine"),
    "refresh_token_literal": auth("flow: refresh_token, client_id: a, refresh_token: hunter2"),
    "jwt_missing": prod("        auth: {flow: jwt}\n"),
    "jwt_with_a_secret": prod(JWT.replace("flow: jwt", "flow: jwt, access_token: \"{{ env_var('SECRET') }}\"")),
    "client_credentials_at_login": auth(
        f"{SECRET_FLOW}\"{{{{ env_var('SECRET') }}}}\"", "https://login.salesforce.com"
    ),
    "access_token_missing": prod("        auth: {flow: access_token}\n"),
    "literal_secret": auth(f"{SECRET_FLOW}hunter2"),
    "literal_secret_number": auth(f"{SECRET_FLOW}12345"),
    "literal_secret_default": auth(f"{SECRET_FLOW}\"{{{{ env_var('SECRET', 'hunter2') }}}}\""),
    "literal_secret_around": auth(f"{SECRET_FLOW}\"hunter2{{{{ env_var('SECRET') }}}}\""),
    "literal_secret_var": auth(f"{SECRET_FLOW}\"{{{{ var('secret') }}}}\""),
    "literal_secret_other_target": prod("        org: emulator\n").replace(
        "dev: {org: emulator}", f"dev: {{login_url: https://a.my.salesforce.com, auth: {{{SECRET_FLOW}hunter2}}}}"
    ),
    "private_key_inline": auth("flow: jwt, client_id: a, username: b, private_key: hunter2"),
    "secret_in_both": auth(f"{SECRET_FLOW}\"{{{{ env_var('SECRET') }}}}\", client_secret_path: key.pem"),
    "secret_file_empty": auth("flow: client_credentials, client_id: x, client_secret_path: key.pem"),
    "secret_file_absent": auth("flow: client_credentials, client_id: x, client_secret_path: nope"),
    "key_file_absent": prod(JWT.replace("key.pem", "nope.pem")),
    "channel_literal": prod(JWT, "warnings: {channels: [https://hooks.example.com/hunter2]}\n"),
    "channel_long_form_literal": prod(
        JWT, "warnings: {channels: [{url: https://hooks.example.com/hunter2, only: critical}, {href: hunter2}]}\n"
    ),
    "channels_wrong": prod(
        JWT,
        "warnings:\n  channels:\n    - {url: \"{{ env_var('HOOK') }}\", only: warning}\n    - {only: critical}\n"
        "    - \"{{ env_var('HOOK') }}\"\n  digest: 18:30\n",
    ),
    "channel_urls": prod(
        JWT,
        "warnings:\n  channels:\n    - \"{{ env_var('SECRET') }}\"\n    - \"{{ env_var('PLAIN_HOOK') }}\"\n"
        "    - {url: \"{{ env_var('NOPE') }}\"}\n    - \"{{ env_var('EMPTY') }}\"\n    - \"{{ env_var('NO_TLS') }}\"\n"
        "    - \"{{ env_var('TWO') }}\"\n",
    ),
    "digest_wrong": prod(JWT, 'warnings: {digest: {at: "25:00", timezone: Europe/Pariss, each: day}}\n'),
    "digest_without_time": prod(JWT, "warnings: {digest: {timezone: UTC}}\n"),
    "url_http": auth("flow: jwt", "http://acme.my.salesforce.com"),
    "url_not_salesforce": auth("flow: jwt", "https://evil-salesforce.com"),
    "url_with_user": auth("flow: jwt", "https://ada:hunter2@acme.my.salesforce.com"),
    "url_with_port": auth("flow: jwt", "https://acme.my.salesforce.com:8443"),
    "url_with_path": auth("flow: jwt", "https://acme.my.salesforce.com/services"),
    "url_from_environment": auth("flow: jwt", "\"{{ env_var('EVIL') }}\""),
    "organization_id": prod(JWT + "        organization_id: 00D000000000001AAA\n"),
    "api_share": prod(JWT + "        api_share: 120%\n"),
    "api_share_number": prod(JWT + "        api_share: 80\n"),
    "variable_unset": prod(JWT.replace("'ID'", "'NOPE'")),
    "variable_empty": prod(JWT.replace("'ID'", "'EMPTY'")),
    "dbt_variable_unset": prod(JWT.replace("env_var('ID')", "var('org')")),
    "template_attribute": prod(JWT.replace("env_var('ID')", "''.__class__.__mro__")),
    "template_filter": prod(JWT.replace("env_var('ID')", "env_var('ID') | upper")),
    "template_loop": prod(JWT.replace("{{ env_var('ID') }}", "{% for i in range(9) %}x{% endfor %}")),
    "template_unclosed": prod(JWT.replace("{{ env_var('ID') }}", "{{ env_var('ID'")),
    "state_both": prod(JWT, "state: {location: a, warehouse: {schema: dinmo}}\n"),
    "state_in_target": prod(JWT, "state: {location: target/state}\n"),
    "number_overflow": prod(JWT, "state: {location: " + "9" * 5000 + "}\n"),
    "base_60": prod(JWT, "emulator: {schema: 12:30}\n"),
    "several_at_once": prod(JWT.replace("flow: jwt", "flow: jwt, colour: red"), "stat: {}\n").replace(
        "{org: emulator}", "{org: emulatr}"
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_mistake_has_its_message(case: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, WRONG[case])
    text = told(raised.value)
    golden(f"dinmo_yml_{case}", text)
    assert "hunter2" not in text and "12345" not in text
    assert str(tmp_path) not in text


def test_without_the_file_the_message_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_project(tmp_path, target="dev", env={}, vars={}, offline=True)
    golden("dinmo_yml_absent", told(raised.value).replace(str(tmp_path), "<project>"))
    assert load(tmp_path, raised.value.problems[0].hint.partition("\n\n")[2], target="dev").org("crm").is_emulator


def test_a_folder_of_that_name_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "dinmo.yml").mkdir()
    with pytest.raises(ConfigError, match="DB102"):
        load_project(tmp_path, target="dev", env={}, vars={}, offline=True)


def test_a_production_org_is_read(tmp_path: Path) -> None:
    text = prod(
        JWT + "        organization_id: 00D5g000000xYZa\n        api_share: 12.5%\n",
        "state: {location: ~/state}\nemulator: {schema: org.yml, records: csv}\ndefaults: {api: bulk}\n",
    )
    project = load(tmp_path, text)
    org = project.org("crm")
    assert org.credentials
    assert (org.credentials.flow, org.credentials.client_id, org.credentials.username) == (
        "jwt",
        "3MVG9",
        "ada@acme.io",
    )
    assert org.credentials.private_key_path == tmp_path / "key.pem"
    assert org.organization_id == organization_id("00D5g000000xYZa")
    assert org.api_share == Decimal("12.5")
    assert project.state_location == Path("/home/ada/state")
    assert project.emulator.schema == tmp_path / "org.yml"
    assert project.emulator.data == Path("/home/ada/state/emulator")
    assert project.defaults == {"api": "bulk"}
    assert project.notes == ()


def test_a_number_like_secret_stays_text_and_never_shows(tmp_path: Path) -> None:
    project = load(tmp_path, auth(f"{SECRET_FLOW}\"{{{{ env_var('SECRET') }}}}\""))
    credentials = project.org("crm").credentials
    assert credentials and credentials.client_secret
    assert credentials.client_secret.reveal() == "0123"
    assert "0123" not in repr(project) + str(credentials.client_secret) + f"{credentials.client_secret}"
    assert pickle.loads(pickle.dumps(credentials.client_secret)).reveal() == "***"
    assert credentials.client_secret == Secret("0123")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_secret_may_come_from_a_file(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123\n")
    os.chmod(secret, mode)
    project = load(tmp_path, auth("flow: client_credentials, client_id: x, client_secret_path: secret"))
    credentials = project.org("crm").credentials
    assert credentials and credentials.client_secret == Secret("0123")
    assert project.notes == ()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o444, 0o620, 0o777])
@pytest.mark.parametrize("flow", ["client_credentials", "access_token", "jwt"])
def test_a_secret_in_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int, flow: str) -> None:
    keys = {
        "client_credentials": "client_id: x, client_secret_path: secret",
        "access_token": "instance_url: https://acme.my.salesforce.com, access_token_path: secret",
        "jwt": "client_id: x, username: u, private_key_path: secret",
    }
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    os.chmod(secret, mode)
    text = auth(f"flow: {flow}, {keys[flow]}")
    with pytest.raises(ConfigError, match="DB124") as raised:
        load(tmp_path, text)
    assert "chmod 600" in told(raised.value) and "hunter2" not in told(raised.value)
    assert load(tmp_path, text, offline=True).notes == (), "offline no file of a destination is looked at"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "the file can't be read: it is a folder, not a file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "the file can't be read as text"),
        (lambda path: path.write_text(" \n"), "the file is empty"),
    ],
)
def test_a_secrets_file_that_is_none_is_reported_once(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    secret = tmp_path / "secret"
    make(secret)
    if secret.is_file():
        secret.chmod(0o600)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, auth("flow: refresh_token, client_id: x, refresh_token_path: secret"))
    (problem,) = raised.value.problems
    assert (problem.code, problem.message) == ("DB122", message)
    assert problem.where.endswith("auth.refresh_token_path")


def test_a_rendered_value_is_not_rendered_again(tmp_path: Path) -> None:
    project = load(tmp_path, auth(f"{SECRET_FLOW}\"{{{{ env_var('NESTED') }}}}\""))
    credentials = project.org("crm").credentials
    assert credentials and credentials.client_secret == Secret("{{ env_var('SECRET') }}")


def test_only_the_chosen_target_renders(tmp_path: Path) -> None:
    text = prod(JWT.replace("'ID'", "'NOPE'").replace("key.pem", "nope.pem"))
    assert load(tmp_path, text, target="dev").org("crm").is_emulator


def test_offline_an_unset_variable_is_a_note_and_no_file_is_looked_for(tmp_path: Path) -> None:
    text = prod(JWT.replace("'ID'", "'NOPE'").replace("key.pem", "nope.pem"))
    project = load(tmp_path, text, offline=True)
    assert project.org("crm").target == "prod"
    assert [(note.code, note.where) for note in project.notes] == [
        ("DB117", "dinmo.yml:7: destinations.crm.targets.prod.auth.client_id")
    ]


def test_variables_and_defaults_render_as_in_dbt(tmp_path: Path) -> None:
    text = prod(
        JWT.replace("{{ env_var('ID') }}", "a-{{ var('n') }}-{{ env_var('NOPE', 'x') }}-{{ var('m', default=2) }}")
    )
    credentials = load(tmp_path, text, vars={"n": 5}).org("crm").credentials
    assert credentials and credentials.client_id == "a-5-x-2"


def test_a_destination_without_an_entry_for_the_target_fails_only_when_used(tmp_path: Path) -> None:
    project = load(tmp_path, prod(JWT), target="prd")
    for name in ("crm", "crn"):
        with pytest.raises(ConfigError) as raised:
            project.org(name)
        golden(f"destination_{name}", told(raised.value))
    assert load(tmp_path, prod(JWT), target=None).problems_with("crm")


def test_state_may_be_in_the_warehouse_and_history_is_kept_as_long_as_asked(tmp_path: Path) -> None:
    project = load(tmp_path, prod(JWT, "state: {warehouse: {schema: dinmo}, history: 30 days}\n"))
    assert (project.state_warehouse_schema, project.history_s) == ("dinmo", 30 * 86400.0)
    assert load(tmp_path, prod(JWT)).history_s == 90 * 86400.0


CHANNELS = """\
warnings:
  channels:
    - "{{ env_var('NOT_HERE', '') }}"
    - "{{ env_var('HOOK') }}"
    - {url: "{{ env_var('PAGER') }}", only: critical}
  digest: {at: "08:00", timezone: Europe/Paris}
"""


def test_channels_and_the_digest_are_read_and_the_urls_never_show(tmp_path: Path) -> None:
    project = load(tmp_path, prod(JWT, CHANNELS), env=ENV | {"PAGER": "pagerduty://hunter2@key"})
    assert project.channels == (
        Channel("warnings.channels[1]", Secret("https://hooks.example.com/hunter2")),
        Channel("warnings.channels[2]", Secret("pagerduty://hunter2@key"), only_critical=True),
    )
    assert project.digest == Digest("08:00", "Europe/Paris")
    assert load(tmp_path, prod(JWT, 'warnings: {digest: "18:30"}\n')).digest == Digest("18:30", "UTC")
    assert project.notes == () and project.silent_channels == ("warnings.channels[0]",)
    assert "hunter2" not in repr(project)


def test_offline_an_unset_channel_is_a_note(tmp_path: Path) -> None:
    project = load(tmp_path, prod(JWT, CHANNELS), env={}, offline=True)
    assert project.channels == ()
    assert [note.where.partition(": ")[2] for note in project.notes if "channels" in note.where] == [
        f"warnings.channels[{number}]" for number in (1, 2)
    ]


def test_anchors_and_merges_are_read_as_yaml_says(tmp_path: Path) -> None:
    text = (
        "destinations:\n  crm:\n    targets:\n      dev: &it {org: emulator}\n      ci: *it\n"
        "      prod:\n        <<: [*it, {org: other}]\n"
    )
    project = load(tmp_path, text)
    assert project.targets == {"crm": ("dev", "ci", "prod")}
    assert project.org("crm").is_emulator


def test_an_emulator_that_runs_is_an_org_like_any(tmp_path: Path) -> None:
    inner = 'flow: access_token, instance_url: "http://127.0.0.1:4711", access_token: "{{ env_var(\'SECRET\') }}"'
    credentials = load(tmp_path, auth(inner, "http://127.0.0.1:4711")).org("crm").credentials
    assert credentials and credentials.instance_url == "http://127.0.0.1:4711"


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.my.salesforce.com",
        "https://acme--dev.sandbox.my.salesforce.com/",
        "https://ACME.my.salesforce.com",
        "https://login.salesforce.com",
        "https://test.salesforce.com",
        "https://army.my.salesforce.mil",
        "http://localhost:8080",
        "http://[::1]:8080",
        "https://proxy.acme.io",
        "https://sf.acme.net",
    ],
)
def test_salesforce_hosts_pass(url: str) -> None:
    assert url_problem(url, ("proxy.acme.io", "*.acme.net")) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://evil-salesforce.com",
        "https://evilmy.salesforce.com",
        "https://my.salesforce.com.evil.io",
        "https://x.my.salesforce.com@evil.io",
        "https://evil.io\\.my.salesforce.com",
        "https://evil.io#.my.salesforce.com",
        "https://evil.io?.my.salesforce.com",
        "https://169.254.169.254",
        "https://2130706433",
        "http://0x7f.1",
        "https://127.0.0.2",
        "https://[::ffff:169.254.169.254]",
        "https://acme.my.salesforce.com.",
        "https://acme.my\u3002salesforce.com",
        "https://acme。my.salesforce.com",
        "https://acme.my.salesforce.com\n.evil.io",
        "https://acme.my.salesforce.com:99999",
        "ftp://acme.my.salesforce.com",
        "//acme.my.salesforce.com",
        "acme.my.salesforce.com",
        "https://[",
        "https://acme.net",
        "",
    ],
)
def test_other_hosts_are_refused(url: str) -> None:
    assert url_problem(url, ("*.acme.net",)) != ""


def test_a_host_is_compared_whole() -> None:
    assert not host_allowed("")
    assert not host_allowed("my.salesforce.com")
    assert not host_allowed("salesforce.com")


def test_organization_ids_are_checked_and_expanded() -> None:
    assert organization_id("00DA0000000XxXx") == "00DA0000000XxXxMAK"
    assert organization_id("00DA0000000XxXxMAK") == "00DA0000000XxXxMAK"
    assert organization_id("00DA0000000XxXxmak") == "00DA0000000XxXxMAK"
    for wrong in ("00DA0000000XxXxMAJ", "001A0000000XxXx", "00DA0000000XxX", "00DA0000000XxXx\n", "00DA0000000XxX é"):
        assert organization_id(wrong) is None


YAML = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet="abc:{}[]&*!<>-#'\"%@`|, \n\t0159.eE_=~?", max_size=80).map(str.encode),
    st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")),
    st.tuples(st.integers(0, 400), st.binary(max_size=4)).map(
        lambda change: prod(JWT).encode()[: change[0]] + change[1] + prod(JWT).encode()[change[0] + len(change[1]) :]
    ),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(YAML)
@example(b"a: 0b_")
@example(b"a: 0x_")
@example(b"a: =")
@example(b"a: 1:99999999999999999999.0")
@example(b"%YAML 9999999999999999999999.1\n---\na")
@example(b'"\\U7fffffff": 1')
@example(b"? [a]\n: b")
@example(b"a: .inf")
@example(b"a: -.")
@example(b"\xef\xbb\xbfdestinations: {}")
def test_any_bytes_give_a_project_or_an_error_of_ours(tmp_path: Path, raw: bytes) -> None:
    for offline in (True, False):
        try:
            load(tmp_path, raw, offline=offline)
        except DinmoError as error:
            assert error.problems
            str(error).encode()


KEYS = (
    "destinations crm targets prod org auth flow login_url client_id client_secret api_share state location "
    "warehouse schema emulator warnings channels url only digest at defaults organization_id allowed_hosts"
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(list(ENV.values())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS.split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
def test_any_values_give_a_project_or_an_error_of_ours(tmp_path: Path, value: Any) -> None:
    read = document.Document("dinmo.yml", value, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "load", lambda path: read)
        for wrapped in (value, {"destinations": {"crm": {"targets": {"prod": value}}}}):
            read = document.Document("dinmo.yml", wrapped, {})
            try:
                load_project(tmp_path, target="prod", env=ENV, vars={}, offline=False)
            except DinmoError as error:
                assert error.problems


@pytest.mark.parametrize("text", ["0755", "12:30:00", "0x1F", "1234567890123456789.123", ".inf"])
def test_a_number_that_yaml_changes_is_reported(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, prod(JWT, f"defaults:\n  constants:\n    Amount__c: {text}\n"))
    (problem,) = raised.value.problems
    assert (problem.code, problem.where) == ("DB108", "dinmo.yml:10: defaults.constants.Amount__c")
    assert load(tmp_path, prod(JWT, f"defaults:\n  constants:\n    Amount__c: '{text}'\n")).defaults


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ("https://acme.lightning.force.com/lightning/setup/SetupOneHome/home", "https://acme.my.salesforce.com"),
        ("acme--dev.sandbox.lightning.force.com", "https://acme--dev.sandbox.my.salesforce.com"),
        ("https://Acme.my.salesforce-setup.com/lightning/setup", "https://acme.my.salesforce.com"),
        ("http://acme.my.salesforce.com:443/services/oauth2/token", "https://acme.my.salesforce.com"),
        ("https://acme.example.com/lightning.force.com", ""),
        ("https://evil.com/?acme.lightning.force.com", ""),
        ("https://user@acme.lightning.force.com", ""),
    ],
)
def test_the_orgs_own_address_is_known_from_a_pages(given: str, own: str) -> None:
    assert own_url(given) == own
