"""Every code that dinmo-dbt prints, once: its name here, what it means, what to do, and what follows from it.

A code is stable between releases, and never used again for something else. docs/errors.md is made of this table, and
code that asks what kind of reason a code is asks it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code stands for.

    `exit_code` is that of a command that ends by it; 0 for a note, which ends none. `lasts`: no later run gets past it
    until a person has mended something, so an activation may pause for it. `is_schema`: what Salesforce has is no more
    what the activation was made for. `of_state`: the state itself can't be used, whatever the activation. `passes`:
    something else is at work right now, and what was due stays due.
    """

    means: str
    what_to_do: str
    exit_code: int = 0
    lasts: bool = False
    is_schema: bool = False
    of_state: bool = False
    passes: bool = False


MEANINGS: dict[str, Meaning] = {}


def meaning(code: str) -> Meaning:
    """Of any code; of one that another version printed, which a history may hold, nothing is known."""
    return MEANINGS.get(code, Meaning("", ""))


def _code(code: str, means: Meaning) -> str:
    assert code not in MEANINGS, code
    MEANINGS[code] = means
    return code


# fmt: off

# Configuration: `meta` and `dinmo.yml`
NO_DBT_PROJECT = _code("DB100", Meaning("No dbt project here.", "Run in the folder of `dbt_project.yml` or below it, or give `--project-dir`.", exit_code=2))
NO_DINMO_YML = _code("DB101", Meaning("There is no `dinmo.yml`.", "Write one beside `dbt_project.yml`; the message holds a smallest one.", exit_code=2))
YAML_UNREADABLE = _code("DB102", Meaning("A YAML file can't be read.", "Check its permissions; it must be UTF-8 text.", exit_code=2))
YAML_SYNTAX = _code("DB103", Meaning("A file is not valid YAML.", "The message names the line.", exit_code=2))
YAML_DUPLICATE_KEY = _code("DB104", Meaning("A key stands twice in one mapping.", "Keep one; YAML would silently take the last.", exit_code=2))
YAML_TOO_LARGE = _code("DB105", Meaning("A YAML file is too large or nested too deep.", "1,000,000 bytes and 50 levels are the limits.", exit_code=2))
YAML_TAG = _code("DB106", Meaning("A YAML tag (`!something`) is used.", "Write plain values.", exit_code=2))
YAML_KEY_NOT_TEXT = _code("DB107", Meaning("A key is not text.", "Quote it: YAML reads a bare `on`, `no` or `12` as something else.", exit_code=2))
YAML_MISREAD = _code("DB108", Meaning("A number that YAML reads as another one than stands there: `0755` is 493, `12:30:00` is 45000.", "Quote it if it is text; write a number in decimal.", exit_code=2))
UNKNOWN_KEY = _code("DB110", Meaning("An unknown key.", "The nearest valid key is named.", exit_code=2))
WRONG_TYPE = _code("DB111", Meaning("A value of the wrong type.", "The message says what is expected.", exit_code=2))
NOT_ALLOWED = _code("DB112", Meaning("A value that is not allowed.", "The allowed ones are listed.", exit_code=2))
REQUIRED_KEY = _code("DB113", Meaning("A required key is missing.", "Add it.", exit_code=2))
KEYS_CONFLICT = _code("DB114", Meaning("Two keys exclude each other.", "Keep one.", exit_code=2))
MISPLACED_KEY = _code("DB115", Meaning("A key in the wrong place, or a secret where none may be.", "Secrets come from `env_var()` in `dinmo.yml`.", exit_code=2))
NOT_RENDERED = _code("DB116", Meaning("A `{{ … }}` can't be rendered.", "Only `{{ env_var('NAME') }}` and `{{ var('name') }}` are understood.", exit_code=2))
VARIABLE_UNSET = _code("DB117", Meaning("An environment variable or a dbt variable is not set, or renders empty.", "Set it.", exit_code=2))
HOST_NOT_ALLOWED = _code("DB118", Meaning("A URL that credentials may not be sent to.", "Use https and the org's My Domain; `allowed_hosts` names others.", exit_code=2))
FLOW_NOT_OFFERED = _code("DB119", Meaning("An authentication flow that is not offered: by password.", "Use one that the message names.", exit_code=2))
NO_DESTINATION = _code("DB120", Meaning("A destination that `dinmo.yml` does not have.", "Correct the name, or add it under `destinations`.", exit_code=2))
NO_TARGET = _code("DB121", Meaning("The destination has no entry for the dbt target.", "Add it under `targets`, or choose another `--target`.", exit_code=2))
FILE_NOT_READ = _code("DB122", Meaning("A file that `dinmo.yml` names can't be read or is empty.", "Check the path; it is relative to the project.", exit_code=2))
NOT_AN_ORGANIZATION_ID = _code("DB123", Meaning("`organization_id` is not a Salesforce organization id.", "Copy it from Setup -> Company Information.", exit_code=2))
SECRET_FILE_OPEN = _code("DB124", Meaning("A file with a secret that other users of the machine may read or change.", "`chmod 600` it, or mount it with mode 0400 or 0440.", exit_code=2))
NOT_A_CHANNEL_URL = _code("DB125", Meaning("A channel's URL that can't be one.", "Give a webhook's https URL or an Apprise URL, as [warnings.md](warnings.md) lists them.", exit_code=2))
NO_CHANNEL = _code("DB126", Meaning("`dinmo.yml` has no channel to send to.", "Add one under `warnings: {channels: [...]}`.", exit_code=2))
ORG_OF_TWO_TARGETS = _code("DB127", Meaning("Two dbt targets lead to one org.", "Give one of them another org; if it is meant, `shares_org_with: [TARGET]` under the target in `dinmo.yml`.", exit_code=2))
DUPLICATE_NAME = _code("DB130", Meaning("Two activations have one name.", "Give one another `name`: state and history are kept under it.", exit_code=2))
INHERITED_BLOCK = _code("DB131", Meaning("Several models inherit one activations block.", "A folder's `+meta` reaches every model below: move it to the model.", exit_code=2))
MODEL_DISABLED = _code("DB132", Meaning("Note: the model is disabled in dbt for this target.", "Its activations are skipped, and the others sync."))
NO_RELATION = _code("DB133", Meaning("The model has no relation: it is ephemeral.", "Materialize it as a table or view.", exit_code=2))
NO_KEY = _code("DB134", Meaning("The model has no `key`.", "Give `key`, or a primary key that dbt knows (unique and not_null tests).", exit_code=2))
NOT_IN_CONTRACT = _code("DB135", Meaning("A mapped column is not in the model's enforced contract.", "Correct the name.", exit_code=2))
NOT_DOCUMENTED = _code("DB136", Meaning("Note: a mapped column that the YAML does not document, and that is nearly one that it does.", "`validate --online` looks at the relation itself."))
SNAPSHOT_HISTORY = _code("DB137", Meaning("Note: a dbt snapshot keeps several rows per key.", "Filter to the current ones with `where`."))
UNKNOWN_SEGMENT = _code("DB138", Meaning("A segment that the model does not declare.", "Add it under `segments`.", exit_code=2))
FIELD_TWICE = _code("DB139", Meaning("One Salesforce field is written twice.", "Keep one of them.", exit_code=2))
NO_ACTIVATION = _code("DB140", Meaning("No model declares an activation.", "Write `config.meta.dinmo`, then run `dbt parse` or `dbt build`.", exit_code=2))
OBJECTS_IN_A_CIRCLE = _code("DB141", Meaning("Note: activations' objects refer to one another in a circle.", "A row whose parent is not there yet is held and goes in the next sync."))
NOT_AVAILABLE = _code("DB142", Meaning("A value that is known and not available in this release.", "Take it out; see *later* in [meta.md](meta.md).", exit_code=2))
NOT_A_MODEL = _code("DB144", Meaning("Something else than a model, seed or snapshot declares an activation.", "Move it.", exit_code=2))
REMOVES_ANOTHERS_RECORDS = _code("DB145", Meaning("An activation could delete records that another one keeps.", "`on_removed: ignore`, or another object; if it is meant, `shares_object_with: [NAME]`: a record that the other holds is left alone then.", exit_code=2))
FIELD_OF_SEVERAL = _code("DB146", Meaning("Note: several activations write the same field of one object.", "Of a record that both have, the one that runs last decides. If their rows are apart, or it is meant: `shares_object_with: [NAME]`."))
MISPLACED_BLOCK = _code("DB147", Meaning("A `dinmo` block is misspelt, or stands where dbt hands nothing on.", "Move it under `config: {meta: {dinmo: ...}}` of the model, or `+meta: {dinmo: ...}` in dbt_project.yml.", exit_code=2))
BLOCK_OF_NO_MODEL = _code("DB148", Meaning("A `dinmo` block is of a model or folder that the project does not have.", "Correct the name; what is new is known after `dbt parse`.", exit_code=2))
BLOCK_OF_OLDER_VERSION = _code("DB149", Meaning("A `dinmo` block of a model version that is not the latest.", "Write it at the latest version, or at the model itself.", exit_code=2))
BLOCK_OF_A_PACKAGE = _code("DB150", Meaning("Note: a package brings a `dinmo` block, which is ignored.", "Give the block yourself, in your own `dbt_project.yml`, or at a model of your own that selects from the package's."))
NO_COLUMN = _code("DB151", Meaning("The relation lacks a mapped column.", "Correct the name, or run `dbt build`.", exit_code=2))
COLUMNS_DIFFER_IN_CASE = _code("DB152", Meaning("Several columns differ from the name only in case.", "Write the name exactly.", exit_code=2))

# dbt's artifacts
NO_ARTIFACT = _code("DB201", Meaning("A dbt artifact is missing.", "Run `dbt build`; `--target-path` says where it is.", exit_code=2))
ARTIFACT_UNREADABLE = _code("DB202", Meaning("A dbt artifact can't be read or is not whole.", "Run `dbt build` again.", exit_code=2))
NOT_A_MANIFEST = _code("DB203", Meaning("`manifest.json` is not a dbt manifest.", "Run `dbt build`.", exit_code=2))
OTHER_MANIFEST_VERSION = _code("DB204", Meaning("The manifest has a schema version that is not read.", "Update the older of dbt and dinmo-dbt.", exit_code=2))
OTHER_PROJECT = _code("DB205", Meaning("The manifest is another project's.", "Run `dbt build` in this one, or give `--target-path`.", exit_code=2))
PROJECT_CHANGED = _code("DB206", Meaning("Note: files of the project were changed since dbt last read it.", "`validate` and `plan` have dbt parse it again; else run `dbt build` or `dbt parse`."))
PROJECT_UNPARSED = _code("DB207", Meaning("dbt can't read the project as it is.", "`dbt parse` says why; `--no-parse` goes by what dbt made before.", exit_code=2))
OTHER_VARS = _code("DB208", Meaning("Note: `--vars`, or environment variables, differ from those that dbt rendered conditions with.", "They are in the manifest as dbt rendered them: run `dbt build` with the same."))
DBT_PROJECT_NOT_RENDERED = _code("DB209", Meaning("A text of `dbt_project.yml` can't be rendered.", "Only `env_var()` and `var()` are: set the variable, or give `--target-path`.", exit_code=2))
NOT_RUN_RESULTS = _code("DB211", Meaning("`run_results.json` is not dbt's.", "Run `dbt build`.", exit_code=2))
OTHER_INVOCATION = _code("DB212", Meaning("Note: the run results name nodes that the manifest lacks: they are of another project, or of an older state of it.", "Failures still count; `dbt build` settles it."))
UNKNOWN_TEST = _code("DB213", Meaning("Note: a failed test that the manifest does not know.", "Run `dbt build` again."))
CLOUD_NOT_CONFIGURED = _code("DB220", Meaning("dbt Cloud's account, token or webhook secret is not set, or can't be used.", "Set the variables that the message names; [dbt-cloud.md](dbt-cloud.md) says where their values stand.", exit_code=2))
CLOUD_REFUSED_TOKEN = _code("DB221", Meaning("dbt Cloud refused the token.", "Make a service token that may read the job's project, and see that host and account are its own.", exit_code=1))
CLOUD_NOT_FOUND = _code("DB222", Meaning("dbt Cloud has no such job or run, or the token may not see it.", "The job's number stands in its URL.", exit_code=1))
CLOUD_RUN_GOES_ON = _code("DB223", Meaning("The job's run has not ended.", "Pass `--wait`, or run again later.", exit_code=1))
CLOUD_RUN_NOT_ENDING = _code("DB224", Meaning("The job's run did not end within 24 hours.", "Look at it in dbt Cloud.", exit_code=1))
CLOUD_NO_ARTIFACTS = _code("DB225", Meaning("The job's run left no artifacts to go by.", "Look at its steps in dbt Cloud: it may have failed before dbt began.", exit_code=1))
CLOUD_UNREACHABLE = _code("DB226", Meaning("dbt Cloud can't be reached.", "Run again; retries are used up.", exit_code=1))
CLOUD_RATE_LIMITED = _code("DB227", Meaning("dbt Cloud answers too many requests only later.", "Run again later; retries are used up.", exit_code=1))
CLOUD_REPLY_UNUSABLE = _code("DB228", Meaning("dbt Cloud's reply can't be used.", "See that `DINMO_DBT_CLOUD_HOST` is the account's own access URL.", exit_code=1))
CLOUD_EVENT_UNREADABLE = _code("DB229", Meaning("A webhook that was kept can't be read.", "Nothing, if the job's latest run built the models: it is synced in its place. Else `sync --dbt-cloud-job ID --run ID`."))
CLOUD_ARTIFACTS_UNUSABLE = _code("DB230", Meaning("A run in dbt Cloud left artifacts that can't be used.", "Nothing, if a later run of the job ends well: that one is synced. Else see the run's steps, and run the job again.", exit_code=1))

# The mapping and Salesforce's schema
NO_OBJECT = _code("DB301", Meaning("The org has no such object, or the user may not see it.", "The message names the Setup page that creates or opens it.", exit_code=2, lasts=True, is_schema=True))
NO_FIELD = _code("DB302", Meaning("The object has no such field, or the user may not see it.", "The message names the Setup page that creates or opens it.", exit_code=2, lasts=True, is_schema=True))
FIELD_NOT_WRITABLE = _code("DB303", Meaning("The user may not write the field, or Salesforce takes no value for it in this mode.", "The message says which, and what helps.", exit_code=2, lasts=True, is_schema=True))
FIELD_COMPUTED = _code("DB304", Meaning("Salesforce computes the field itself, or puts it together of others.", "Take it out of the mapping, or map its parts.", exit_code=2, lasts=True, is_schema=True))
NO_RELATIONSHIP = _code("DB305", Meaning("The object has no such relationship.", "A custom lookup's relationship ends in `__r`.", exit_code=2, lasts=True, is_schema=True))
PARENT_NOT_NAMED_BY = _code("DB306", Meaning("A parent can't be named by that field: Salesforce can't search by it, or it is the record id.", "Name it by another field, such as those in the message, or map its record id to the lookup.", exit_code=2, lasts=True, is_schema=True))
LOOKUP_TARGET = _code("DB307", Meaning("The lookup's target object must be said, or must not be.", "Write it as the message shows.", exit_code=2, lasts=True))
NOT_AN_EXTERNAL_ID = _code("DB308", Meaning("upsert needs an external id.", "Mark the field as External ID in Setup, or use another mode.", exit_code=2, lasts=True, is_schema=True))
MATCH_NOT_SEARCHABLE = _code("DB309", Meaning("The match field can't be searched.", "Use another field.", exit_code=2, lasts=True, is_schema=True))
REQUIRED_FIELD = _code("DB310", Meaning("A required field is not mapped.", "Map a column or a constant to it, or give it a default in Setup.", exit_code=2, lasts=True, is_schema=True))
INSERT_OF_UNIQUE = _code("DB311", Meaning("insert with a unique field would be refused at the first change.", "Set `on_change: ignore`, or use `mode: upsert`.", exit_code=2, lasts=True))
OBJECT_NOT_WRITABLE = _code("DB312", Meaning("The user may not create, edit or delete such records.", "Setup -> Permission Sets -> Object Settings.", exit_code=2, lasts=True, is_schema=True))
COLUMN_TYPE = _code("DB314", Meaning("The column's type can't go into the field.", "Cast it in the model.", exit_code=2, lasts=True, is_schema=True))
LABEL_NOT_NAME = _code("DB315", Meaning("A label stands where an API name belongs.", "The message names it.", exit_code=2, lasts=True))
CONSTANT_DOES_NOT_FIT = _code("DB316", Meaning("A constant does not fit the field, or is what YAML made of a bare word (`NO`, `0755`).", "Correct it, or put it in quotes.", exit_code=2, lasts=True))
KEY_TYPE = _code("DB317", Meaning("The key column's type can't identify rows.", "Cast it in the model.", exit_code=2, lasts=True))

# Guards, gate and counts
FIRST_SYNC = _code("DB401", Meaning("First sync guard: insert into an object that already holds records, without state.", "If the state is lost, restore it, or take the records over with `dinmo-dbt state adopt`. If they are others': `--first-sync`.", exit_code=4))
EMPTY_SEGMENT = _code("DB402", Meaning("The segment is empty, but rows were synced before.", "Look at the model; nothing was sent.", exit_code=4))
MAX_CHANGE = _code("DB403", Meaning("More known rows changed than `max_change` allows.", "If that is right: `--allow-changes N`.", exit_code=4))
REMAPPED = _code("DB404", Meaning("A changed mapping would send many rows their new fields.", "If that is right: `--allow-remap N`.", exit_code=4))
FULL_INSERT = _code("DB406", Meaning("`--full` would insert every known row again.", "Leave it out for inserts.", exit_code=4))
MAX_DELETE = _code("DB407", Meaning("More records would be deleted, or set by `on_removed`, than `max_delete` allows.", "If that is right: `--allow-deletes N`.", exit_code=4))
MAX_CREATED = _code("DB408", Meaning("More new rows came than `max_created` allows.", "If that is right: `--allow-creates N`. See [guards.md](guards.md).", exit_code=4))
KEYS_REPLACED = _code("DB409", Meaning("Known keys left while as many new ones came: the key changed its spelling or its type, is not the same twice, or the segment changed.", "`dinmo-dbt state rekey` pairs the rows with what they were; others indeed: `--allow-replaced N`. See [guards.md](guards.md).", exit_code=4))
KEYS_NOT_UNIQUE = _code("DB410", Meaning("Keys or match values are null, blank or repeated.", "Make them unique in the model; `plan --show-values` names some, with a query that finds their rows.", exit_code=4))
INSERTED_AGAIN = _code("DB411", Meaning("Rows that may have been inserted already would be inserted again.", "Look in Salesforce first; `retry --unknown --yes` sends them again, and those that were made exist twice.", exit_code=4))
NOTHING_TO_ADOPT = _code("DB412", Meaning("`state adopt` found nothing to take over.", "Its plan says why: unmatched or ambiguous rows, or rows that are known already.", exit_code=4))
TEXT_CHANGED_WITH_TYPE = _code("DB413", Meaning("An insert: the text of a column changed with its type, and rows are not what they were before.", "`on_change: ignore` for one sync takes them as they are; if they changed: `--allow-changes N`.", exit_code=4))
INSERT_NOT_REPAIRED = _code("DB414", Meaning("`verify --repair` can't mend what an insert made: it never changes a record.", "Correct the records in Salesforce, or leave them.", exit_code=4))
RUN_OF_ANOTHER_ORG = _code("DB415", Meaning("The run to revert wrote to another org.", "Choose the `--target` that reaches it.", exit_code=4))
NO_BEFORE_IMAGES = _code("DB416", Meaning("The run to revert keeps no before-images.", "Set `keep_before_images: true` before the next one; the latest 20 runs that sent something are kept.", exit_code=4))
NOT_REKEYED = _code("DB417", Meaning("`state rekey` can't pair rows: some are in flight, or an upsert's records hold the old key as their match value.", "The message says what to do first.", exit_code=4))
NOTHING_TO_REKEY = _code("DB418", Meaning("`state rekey` found no row that is a known one under another key.", "Name the column that holds the old key: `--from COLUMN`; or `dinmo-dbt state adopt`.", exit_code=4))
VALUES_MOVED = _code("DB419", Meaning("Rows of an insert have the very values that other known keys had: values move from key to key, as under a row number.", "Give the model a key that stays with its row. See [guards.md](guards.md).", exit_code=4))
VALUES_LEFT_OUT = _code("DB439", Meaning("Note: values that their fields can't take, as `validate --data` found them.", "Mend them in the model; each sync leaves these rows out, and says so."))
BLOCKED = _code("DB450", Meaning("The gate blocked the model: its build or one of its tests failed.", "Mend the model, then run `dbt build` again; `--ignore-gate` syncs it as it is.", exit_code=4))
EMPTY_BUILD = _code("DB451", Meaning("The last dbt build ran with `--empty`.", "Run it again without.", exit_code=4))
SAMPLE_BUILD = _code("DB452", Meaning("The last dbt build ran with `--sample`.", "Run it again without.", exit_code=4))
OTHER_ADAPTER = _code("DB455", Meaning("The manifest was written for another adapter.", "Run dbt for this target, or choose `--target`.", exit_code=4))
OTHER_TARGET = _code("DB456", Meaning("dbt ran for another target.", "Run dbt for this target, or choose `--target`.", exit_code=4))
OTHER_RELATIONS = _code("DB457", Meaning("The manifest's relations are another target's.", "Run dbt for this target, choose `--target`, or pass `--allow-target-mismatch`.", exit_code=4))
BUILT_MEANWHILE = _code("DB458", Meaning("dbt builds the model right now, or has built it since its rows were read.", "Run again when dbt has ended; a schedule and `serve` do so by themselves.", exit_code=4, passes=True))
COUNTS_OF_RUN = _code("DB490", Meaning("The counts of a run do not add up.", "A defect of dinmo-dbt: please report it with `history --json`.", exit_code=7))
COUNTS_OF_BATCH = _code("DB491", Meaning("A batch has more or fewer results than rows.", "A defect of dinmo-dbt: please report it.", exit_code=7))
AUDIT_FOUND_CHANGES = _code("DB492", Meaning("The audit after a run found rows that were taken for unchanged and did change.", "The next sync sends the rows it found (not by an insert); send all known rows again with `sync --full`, compare with `verify`, and report it: it is a defect of dinmo-dbt.", exit_code=7))

# State
HELD_BY_ANOTHER = _code("DB501", Meaning("Another run holds this activation's state.", "Wait; the lock goes with its process. If that hangs or is lost: `dinmo-dbt state unlock`.", exit_code=5, passes=True))
STATE_DAMAGED = _code("DB502", Meaning("The state database is damaged, was changed by hand, or is no state of dinmo-dbt. It is left as it is.", "Restore it from a copy, or start again: with `dinmo-dbt state reset ACTIVATION` where the message names it, else move it away; for inserts then `dinmo-dbt state adopt`.", exit_code=5, of_state=True))
TAKEN_OVER = _code("DB503", Meaning("Another run took over, or this one was unlocked. Nothing more was recorded.", "Run again: that settles what this one left.", exit_code=5))
PLAN_STALE = _code("DB504", Meaning("The plan is stale.", "Run again.", exit_code=5))
IDENTITY_CHANGED = _code("DB505", Meaning("The activation's object, key, match or mode changed.", "Undo that, use another name, or `state reset` and `state adopt`.", exit_code=5))
RENAMED = _code("DB506", Meaning("The activation looks renamed.", "Give it its state: `dinmo-dbt state move OLD NEW`.", exit_code=5))
COLUMNS_GONE = _code("DB507", Meaning("Columns that were synced before are gone, and an insert can't tell what changed without them.", "Put them back, or start again as the message says.", exit_code=5))
ORG_OF_ANOTHER_TARGET = _code("DB508", Meaning("Another dbt target's state is of the same org.", "A renamed target: `dinmo-dbt state move --from-target OLD`. Two on purpose: `shares_org_with: [TARGET]` in `dinmo.yml`.", exit_code=5))
STATE_NOT_WRITABLE = _code("DB510", Meaning("The state can't be written. What was there is untouched.", "Free the disk, or mend the permissions.", exit_code=5, of_state=True))
LOCKS_DO_NOT_HOLD = _code("DB511", Meaning("The state lies on a file system whose locks do not hold between machines.", "Set `state.location` to a local folder, or keep the state in the warehouse.", exit_code=5, of_state=True))
SPOOL_DAMAGED = _code("DB512", Meaning("The spool of an unfinished batch is damaged or gone.", "Restore the state folder from a copy.", exit_code=5, of_state=True))
SNAPSHOT_DAMAGED = _code("DB513", Meaning("A snapshot file is damaged or gone.", "Restore the state folder, or `state reset`.", exit_code=5, of_state=True))
STATE_FORMAT = _code("DB514", Meaning("The state has the format of another version of dinmo-dbt.", "A newer one: use that version. An older one: `dinmo-dbt state reset --all`; `dinmo-dbt state adopt` then takes the records over without a write.", exit_code=5, of_state=True))
STATE_NOT_OPENED = _code("DB515", Meaning("The state can't be opened.", "The message says why.", exit_code=5, of_state=True))
NOT_MOVED = _code("DB516", Meaning("`state move` finds no state, or state in the way.", "`dinmo-dbt state show` lists them.", exit_code=5))
IMAGES_UNREADABLE = _code("DB517", Meaning("The before-images of a run can't be read.", "Without them the run can't be reverted; other runs and the next sync are not touched.", exit_code=5))
STATE_PUT_BACK = _code("DB518", Meaning("The state is an older copy that was put back.", "Put the newer one back, or go on from this one as the message says.", exit_code=5, of_state=True))
INSERT_CANT_GO_BACK = _code("DB519", Meaning("An insert activation can't go back to an earlier serial: rows would be inserted again.", "Restore the newer state, or `dinmo-dbt state adopt`.", exit_code=5))
STATE_CONNECTION_LOST = _code("DB520", Meaning("The connection to a state in the warehouse or in a bucket was lost.", "Run again: what was sent meanwhile is settled first.", exit_code=5, of_state=True))
NO_CONDITIONAL_WRITES = _code("DB521", Meaning("The object store of the state lets two writers create the same object, so two runs could write it at once.", "Use a store that honours conditional writes (`If-None-Match`), the warehouse or a folder.", exit_code=5, of_state=True))
UNKNOWN_JOB = _code("DB522", Meaning("The org has a job that this state does not know, and it made rows that an insert would make again: the state is an older copy, or another one.", "Put the newer state back, or `dinmo-dbt state adopt`. If the rows are to be made again all the same: `dinmo-dbt state accept`.", exit_code=5))
OTHER_ROW_HASH = _code("DB523", Meaning("The state's rows were hashed by another version of the row hash, so which of them changed can't be known.", "Compare them with Salesforce, once: `dinmo-dbt state reset`, then `dinmo-dbt state adopt` before any sync.", exit_code=5))
ORG_RECORD_AHEAD = _code("DB524", Meaning("The org's record of the state (`Dinmo_State__c`) is ahead of this state, or another state's: this one is an older copy, or another one. An insert stops.", "Put the newer state back, or `dinmo-dbt state adopt`. If the rows are to be made again all the same: `dinmo-dbt state accept`.", exit_code=5))
SERVED_BY_ANOTHER = _code("DB530", Meaning("Another process serves the dbt target from this state.", "Stop that one first.", exit_code=5))
HISTORY_DAMAGED = _code("DB531", Meaning("The history of runs is damaged. Commands go on with what can be read of it; no row is in it, and it decides no exit code.", "Nothing has to be done: the next command that writes puts it aside (`history.db.damaged-…`). Or move `history.db` away, and nothing else."))
STATE_OPEN_TO_OTHERS = _code("DB532", Meaning("Another user of this machine could change the state: everybody can write to its folder, or somebody else owns it.", "`chmod 700` it, or set `state.location` to a folder of your own."))
STATE_COPIED = _code("DB533", Meaning("The state of this dbt target was copied to another place, or a copy to here did not end.", "Name the place that counts in `dinmo.yml`, or copy (back): the message has the commands.", exit_code=5))
NOT_COPIED = _code("DB534", Meaning("`state copy` does not copy: nothing is there, rows are in flight, or the new place holds a state.", "The message says which; what was there before is what counts.", exit_code=5))
STATE_LEFT_BEHIND = _code("DB535", Meaning("An activation has no state where `dinmo.yml` keeps it, and one in another place, where it was kept before.", "`dinmo-dbt state copy --to folder` or `--to warehouse` takes it along. An insert stops until then, until `state adopt` has taken over what Salesforce holds, or for `--first-sync`.", exit_code=5))
CLOCK_SET = _code("DB539", Meaning("The state has moments that are still to come: this machine's clock was ahead when they were noted, or is behind by now. They count as now.", "Set the clock, and keep it by NTP."))

# Salesforce sessions and jobs; channels
LOGIN_REFUSED = _code("DB601", Meaning("Login refused.", "The message says which setting; see [salesforce-setup.md](salesforce-setup.md).", exit_code=1, lasts=True))
WRONG_ORG = _code("DB602", Meaning("The login reached another org than expected.", "Correct `organization_id`, or the login.", exit_code=1, lasts=True))
HOST_NOT_TRUSTED = _code("DB603", Meaning("A host that credentials or requests may not go to, or a certificate that is not trusted, has expired or is for another host.", "Use https and the org's My Domain. An authority of your own: `ca_file`, or `REQUESTS_CA_BUNDLE`.", exit_code=1, lasts=True))
SESSION_REFUSED = _code("DB604", Meaning("The session or token was refused.", "Get a new token, and see that the user is active and may use the API.", exit_code=1, lasts=True))
REDIRECTED = _code("DB605", Meaning("The org answered with a redirect.", "Set `login_url` to the org's current My Domain.", exit_code=1))
REQUEST_REFUSED = _code("DB606", Meaning("Salesforce refused a request.", "The message holds its code.", exit_code=1))
NO_ANSWER = _code("DB607", Meaning("Salesforce did not answer. Nothing was applied.", "Run again; retries are used up.", exit_code=1))
REPLY_LOST = _code("DB608", Meaning("A reply was lost; the request may have been applied.", "Run again: the next run asks Salesforce first.", exit_code=1))
LIMIT_USED_UP = _code("DB609", Meaning("The org's daily API calls, or the share that `api_share` allows, are used up.", "Wait, or raise `api_share`.", exit_code=1))
RESULTS_UNREADABLE = _code("DB610", Meaning("A Bulk job's results, or a query's pages, can't be read whole.", "Run again; they are read again.", exit_code=1))
QUERY_FAILED = _code("DB611", Meaning("A query job failed or did not end in time.", "Run again.", exit_code=1))
ORG_READ_ONLY = _code("DB612", Meaning("The org is read-only for maintenance.", "Run again when it is over: status.salesforce.com.", exit_code=1))
ROWS_REFUSED_ALIKE = _code("DB613", Meaning("Salesforce refused rows for a reason that every other row would meet: storage, limits, maintenance.", "The message names it; the rest is held for the next run.", exit_code=1))
REQUEST_TOO_LARGE = _code("DB614", Meaning("A request was refused for its size, by Salesforce or a proxy on the way.", "Rows are sent in smaller parts by themselves; a row that alone is too large is rejected.", exit_code=1))
NO_CLI_SESSION = _code("DB615", Meaning("The Salesforce CLI gave no session: it is not on the PATH, not logged in to that org, does not answer, or hides the token.", "The message says which, and the command that mends it.", exit_code=1))
REFRESH_TOKEN_UNUSABLE = _code("DB616", Meaning("A refresh token that an org gave is kept, and can't be used: its file is damaged or open to others, or its successor was lost.", "Authorize the app again, and give the new refresh token.", exit_code=1))
JOB_FAILED = _code("DB620", Meaning("A Bulk job failed or was aborted.", "Rows that it did not process are held for the next run.", exit_code=1))
JOB_GOES_ON = _code("DB622", Meaning("A Bulk job goes on at Salesforce: it did not move for as long as it was waited for.", "The next run asks for it again. Abort it in Setup if it never ends.", exit_code=1))
EMULATOR_NOT_STARTED = _code("DB630", Meaning("The embedded emulator did not start.", "It says why above.", exit_code=1))
EMULATOR_FOLDER = _code("DB631", Meaning("The emulator can't serve its folder.", "Its schema or data is wrong, or another server uses it.", exit_code=1))
EMULATOR_SCHEMA = _code("DB632", Meaning("A schema that the emulator can't use. The schema folder is as it was.", "The message names the file and the element.", exit_code=1))
CHANNEL_NOT_UNDERSTOOD = _code("DB650", Meaning("A channel's URL that is not understood.", "[warnings.md](warnings.md) has the URL of each service. No message shows the URL: it is a secret.", exit_code=1))
CHANNEL_REFUSED = _code("DB651", Meaning("A channel refused a message.", "The webhook is gone, or the login is wrong: correct the URL, then `dinmo-dbt warnings test`.", exit_code=1))
CHANNEL_NOT_REACHED = _code("DB652", Meaning("A channel can't be reached, or did not take a message this time.", "It is tried again; `dinmo-dbt warnings test` tries it alone.", exit_code=1))
NOTICES_GIVEN_UP = _code("DB653", Meaning("Note: notices that no channel can be given any more.", "`dinmo-dbt warnings test` tries each channel."))
INTERRUPTED = _code("DB690", Meaning("The run was asked to stop by a signal.", "Run again: it settles what was sent and continues.", exit_code=130))

# Warehouse
NO_PROFILES = _code("DB701", Meaning("No usable `profiles.yml`.", "Say where it is: `--profiles-dir` or `DBT_PROFILES_DIR`.", exit_code=2))
NO_TABLE = _code("DB702", Meaning("The relation does not exist.", "Run `dbt build` for this target.", exit_code=1))
UNKNOWN_PROFILE = _code("DB703", Meaning("No such profile or target.", "`dbt_project.yml` and `--target` choose them.", exit_code=2))
PROFILES_NOT_RENDERED = _code("DB704", Meaning("`profiles.yml` can't be rendered.", "Set the variable that the message names.", exit_code=2))
BAD_CREDENTIALS = _code("DB705", Meaning("dbt refuses the target's credentials.", "`dbt debug` says more.", exit_code=2))
NO_ADAPTER = _code("DB706", Meaning("The dbt adapter is not installed.", "`pip install` it into dinmo-dbt's environment.", exit_code=2))
WAREHOUSE_NOT_REACHED = _code("DB707", Meaning("The warehouse can't be reached.", "`dbt debug` says more.", exit_code=1))
DATABASE_BUSY = _code("DB708", Meaning("Another process has the DuckDB file open for writing.", "Wait for it, or close it.", exit_code=1, passes=True))
TABLE_DENIED = _code("DB709", Meaning("The warehouse user may not read the relation.", "Grant it select.", exit_code=1))
QUERY_REFUSED = _code("DB710", Meaning("The warehouse refused a query.", "The message holds its own words.", exit_code=1))
VALUE_UNREADABLE = _code("DB711", Meaning("A value of the relation can't be read as Arrow.", "Cast the column in the model.", exit_code=1))
CONNECTION_BROKE = _code("DB712", Meaning("The connection broke while reading.", "Run again; nothing was sent from a part of the rows.", exit_code=1))
NO_STATE_IN_WAREHOUSE = _code("DB713", Meaning("State can't be kept in this kind of warehouse.", "DuckDB and Postgres can; else keep it in a folder or in a bucket.", exit_code=2))

# Command line
BAD_VARS = _code("DB801", Meaning("`--vars` is not a YAML mapping.", "Write `--vars '{day: 2}'`.", exit_code=2))
RESULTS_NOT_WRITTEN = _code("DB802", Meaning("Note: `dinmo_run_results.json` can't be written.", "The history has the run."))
NO_DBT_COMMAND = _code("DB803", Meaning("`run` was given no dbt command.", "`dinmo-dbt run -- dbt build`.", exit_code=2))
FLAG_DIFFERS = _code("DB804", Meaning("A flag differs from the one in the dbt command.", "Give it once, in the dbt command.", exit_code=2))
NO_DBT = _code("DB805", Meaning("dbt is not on the PATH.", "Activate its environment.", exit_code=2))
NO_RUN = _code("DB806", Meaning("No such run.", "`dinmo-dbt history` lists them.", exit_code=2))
NOTHING_TO_RESET = _code("DB807", Meaning("`state reset` was given nothing to forget.", "Name activations, or `--all`.", exit_code=2))
NO_STATE = _code("DB808", Meaning("No such state.", "`dinmo-dbt state show` lists it.", exit_code=2))
NO_SAMPLE_PROJECT = _code("DB809", Meaning("The sample project is not installed.", "Install dinmo-dbt again.", exit_code=2))
DEMO_FAILED = _code("DB810", Meaning("dbt failed in the demo.", "Its output is above.", exit_code=1))
NOTHING_TO_IMPORT = _code("DB811", Meaning("`emulator import` does not know which objects to pull.", "Name them with `--object`, and the org with `--from org:NAME`.", exit_code=2))
NOT_EXPORTED = _code("DB812", Meaning("An export can't be written.", "Name a new file that ends in `.csv` or `.parquet`, in a folder you may write to.", exit_code=2))
NOT_MATCHED = _code("DB813", Meaning("`state adopt` can't match by that.", "For an insert, name mapped columns and their fields: `--match column=Field__c`; other modes have a match of their own.", exit_code=2))
RUN_OF_NO_ACTIVATION = _code("DB814", Meaning("The run to revert is of an activation that no model declares.", "Declare it again; `enabled: false` keeps it from being synced.", exit_code=2))
BAD_AUDIT = _code("DB815", Meaning("`--audit` is no number of rows.", "Write `--audit '2000 rows'`, `--audit 1%` or `--audit off`.", exit_code=2))
SYSTEM_REFUSED = _code("DB816", Meaning("The system refused a file or a folder that the command needs.", "The message names it and says why.", exit_code=1))
SEVERAL_DESTINATIONS = _code("DB817", Meaning("`dinmo.yml` has several destinations, and the command needs one.", "Name it with `--destination`.", exit_code=2))
INIT_CANT = _code("DB818", Meaning("`init` can't find something out, or can't write it without changing what stands.", "Give the flag that the message names, or write the block by hand.", exit_code=2))
INIT_NO_MATCH_FIELD = _code("DB819", Meaning("`init`: no external id of the object is named like a column.", "`--match COLUMN=FIELD`, an external id in Setup, or `--mode insert`.", exit_code=2))
NO_CLOUD_JOB = _code("DB820", Meaning("`--run` or `--wait` without `--dbt-cloud-job`.", "Name the job: `dinmo-dbt sync --dbt-cloud-job JOB --wait`.", exit_code=2))
HALF_OF_CLOUD_FLAGS = _code("DB821", Meaning("`serve` was given one of `--dbt-cloud` and `--dbt-cloud-job` without the other.", "Give both, or neither.", exit_code=2))
PORT_TAKEN = _code("DB822", Meaning("The health endpoint can't listen on its port.", "Choose another with `--port`.", exit_code=2))
NO_RUN_RESULTS = _code("DB829", Meaning("`--run-results` names no file.", "Name files, folders that have a `run_results.json` below, or a pattern.", exit_code=2))
NO_DRY_RUN = _code("DB830", Meaning("`--dry-run` of a command that has none.", "`dinmo-dbt plan` shows what a sync would send.", exit_code=2))
LINE_BREAK = _code("DB831", Meaning("A path or a flag with a line break, which `schedule --emit` can't print.", "Name the folder otherwise.", exit_code=2))
SELECTION_METHOD = _code("DB851", Meaning("A selection method that is not supported.", "Names, folders, `fqn:`, `path:` and `tag:` are.", exit_code=2))
SELECTION_GRAPH = _code("DB852", Meaning("A graph operator (`+`, `@`) in a selection.", "An activation follows its own model only.", exit_code=2))
NOTHING_SELECTED = _code("DB853", Meaning("Nothing is selected.", "The known names are listed.", exit_code=2))

# Defects
DEFECT = _code("DB900", Meaning("A defect of dinmo-dbt.", "Please report it; `DINMO_DEBUG=1` shows the traceback, which may hold row values.", exit_code=1))
