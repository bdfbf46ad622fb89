"""What is shown of words that others wrote: a database's, a driver's, dbt's. Pure.

`redacted`: **nothing of a database's text is passed on.** A value may hold any sign, any word, a whole message of the
database; no quoting tells where it ends. So the text is only searched, for what we know ourselves: the class and the
code of the error, shapes of messages that stand here, the relation's columns, the identifiers and the places of the
statement that we sent, type names of a list. What is shown is put together from these, in our words; the rest is
‹text›. A value that looks like a message can at most choose among these words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

TEXT, VALUE = "‹text›", "‹value›"


@dataclass(frozen=True, slots=True)
class Foreign:
    """An error in others' words. `kind` and `code` never come out of its text: a class's name, the driver's number.

    `sql` is the statement as we sent it, `position` the character of it (from 0) where the driver says the error is.
    `link`: the error is of the connection, before or between statements.
    """

    text: str = field(repr=False)
    kind: str = ""
    code: str = ""
    sql: str = ""
    position: int | None = None
    link: bool = False


def redacted(foreign: Foreign, *, columns: Sequence[str] = (), where: str | None = None) -> str:
    """One line that holds no word of the text. `columns` are the relation's, `where` the condition within the SQL."""
    known = _Statement(foreign.sql, tuple(columns))
    words, hides = _link(foreign.text) if foreign.link else _shape(foreign.text, known)
    place = _place(foreign, where)
    kind = foreign.kind if not foreign.code else f"{foreign.kind} ({foreign.code})".lstrip()
    said = ", ".join(part for part in (words, place) if part)
    return ": ".join(part for part in (kind, said, TEXT if hides or not (kind or said) else "") if part)


_TOKENS = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^'\\]|''|\\.)*'|\$(\w*)\$.*?\$\1\$"
    r'|(?P<quoted>"(?:[^"]|"")+"|`[^`]+`|\[[^\]\n]+\])|(?P<bare>[^\W\d][\w$]*)',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Statement:
    sql: str
    columns: tuple[str, ...]

    def spelling(self, name: str) -> str:
        """The name as we spell it, a column's or an identifier of our statement; ‹text› if it is neither."""
        ours = [*self.columns, *_identifiers(self.sql)]
        alike = (each for each in ours if each.casefold() == name.casefold())
        return name if name in ours else next(alike, TEXT)

    def near(self, name: str) -> str:
        folded = {column.casefold(): column for column in self.columns}
        close = difflib.get_close_matches(name.casefold(), folded, n=1)
        return f"; did you mean {folded[close[0]]}?" if close and name.casefold() not in folded else ""


def _identifiers(sql: str) -> Iterator[str]:
    for found in _TOKENS.finditer(sql):
        if quoted := found["quoted"]:
            yield quoted[1:-1].replace('""', '"')
        elif bare := found["bare"]:
            yield bare


# Type names of DuckDB, Postgres, Snowflake, BigQuery and Databricks, without what stands in parentheses.
_TYPE_NAMES = """
bigint bignumeric binary bit blob bool boolean bpchar byteint bytea bytes char character date datetime dec decimal
double enum float float4 float64 float8 geography hugeint inet int int1 int128 int16 int2 int32 int4 int64 int8
integer interval json jsonb list long macaddr map money name number numeric oid real short smallint string struct
text time timestamp timestamptz timestamp_ltz timestamp_ms timestamp_ns timestamp_ntz timestamp_s timestamp_tz
timetz tinyint ubigint uhugeint uint128 uint16 uint32 uint64 uint8 uinteger union usmallint utinyint uuid varbinary
varbit varchar variant xml
"""
_TYPES = {*_TYPE_NAMES.split(), "character varying", "double precision"} | {
    f"{kind} {zone} time zone" for kind in ("time", "timestamp") for zone in ("with", "without")
}


def _type(name: str) -> str:
    plain = re.sub(r"\(.*\)|\[\d*\]", "", name, flags=re.DOTALL).strip()
    return plain.lower() if plain.lower() in _TYPES else TEXT


# Error codes of the standard and of Postgres that a read or a table of ours may meet (PostgreSQL, Appendix A).
SQLSTATES = {
    "08000": "connection exception",
    "08003": "connection does not exist",
    "08006": "connection failure",
    "0A000": "feature not supported",
    "21000": "cardinality violation",
    "22000": "data exception",
    "22001": "text too long",
    "22003": "number out of range",
    "22005": "error in assignment",
    "22007": "invalid date or time",
    "22008": "date or time out of range",
    "22009": "invalid time zone",
    "2200G": "type mismatch",
    "22011": "substring error",
    "22012": "division by zero",
    "22018": "invalid character value for cast",
    "22019": "invalid escape character",
    "2201B": "invalid regular expression",
    "2201E": "invalid argument of a logarithm",
    "2201F": "invalid argument of a power",
    "22021": "character not in repertoire",
    "22023": "invalid parameter value",
    "22025": "invalid escape sequence",
    "2202E": "array subscript error",
    "22030": "duplicate JSON object key",
    "22032": "invalid JSON text",
    "22P02": "invalid text representation",
    "22P03": "invalid binary representation",
    "22P05": "untranslatable character",
    "23502": "not-null violation",
    "23503": "foreign key violation",
    "23505": "unique violation",
    "23514": "check violation",
    "25006": "read-only transaction",
    "25P02": "transaction is aborted",
    "25P03": "idle in transaction for too long",
    "28000": "invalid authorization",
    "28P01": "invalid password",
    "2F003": "prohibited SQL statement",
    "38000": "external routine failed",
    "3D000": "no such database",
    "3F000": "no such schema",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "42501": "insufficient privilege",
    "42601": "syntax error",
    "42702": "ambiguous column",
    "42703": "no such column",
    "42704": "no such object",
    "42725": "ambiguous function",
    "42803": "grouping error",
    "42804": "type mismatch",
    "42809": "wrong object type",
    "42846": "cannot coerce",
    "42883": "no such function",
    "42P01": "no such table",
    "42P18": "indeterminate type",
    "42S02": "no such table",
    "42S22": "no such column",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "54000": "program limit exceeded",
    "54001": "statement too complex",
    "55000": "object not in prerequisite state",
    "55P03": "lock not available",
    "57014": "query canceled",
    "57P01": "the server is shutting down",
    "57P02": "the server crashed",
    "57P03": "the server does not take connections now",
    "57P05": "idle for too long",
    "58000": "system error",
    "58030": "input or output error",
    "P0001": "raised by a function",
    "XX000": "internal error",
    "XX001": "data corrupted",
    "XX002": "index corrupted",
}
_COLUMN = r"(?: when casting from source column (?P<column>.+))?"
_UNFIT = "a value can't be read as {type}"
# The whole message, and what it means. Groups: `type`, a column or another identifier of our statement; what no group
# names is not shown. First DuckDB's, then Postgres's, Snowflake's, BigQuery's, Databricks's.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), words)
    for pattern, words in (
        (rf"Could not (?:convert|cast) (?:string|value) .* to (?P<type>\w+(?:\([^()]*\))?){_COLUMN}", _UNFIT),
        (rf"Type \w+ with value .* can't be cast .*destination type (?P<type>\w+(?:\([^()]*\))?){_COLUMN}", _UNFIT),
        (rf'Casting value ".*" to type (?P<type>\w+(?:\([^()]*\))?) failed: value is out of range!?{_COLUMN}', _UNFIT),
        (
            r"(?:invalid )?(?P<type>date|timestamp|time) field (?:format|value out of range): .*, expected format is "
            rf".*?{_COLUMN}",
            _UNFIT,
        ),
        (rf"Malformed JSON at byte .*?{_COLUMN}", "a value is not JSON"),
        (r"Could not parse string .* according to format specifier .*", "a text does not fit the format of strptime"),
        (r"Could not decode string .* as base64.*", "a text is not base64"),
        (r"extract specifier .* not recognized", "a part of a date is asked for that there is not"),
        (r"Overflow in (?:\w+) of .*", "a number overflows"),
        (r"Value out of range", "a number is out of range"),
        (r"More than one row returned by a subquery.*", "a subquery gives more than one row"),
        (r'Referenced column "(?P<missing>.*?)" (?:was )?not found.*', "there is no column {missing}"),
        (r'Table ".*?" does not have a column named "(?P<missing>.*?)".*', "there is no column {missing}"),
        (r"Scalar Function with name (?P<name>.*?) does not exist!.*", "there is no function {name}"),
        (r"Type with name (?P<name>.*?) does not exist!.*", "there is no type {name}"),
        (r"(?:Table|View) with name (?P<name>.*?) does not exist!.*", "there is no relation {name}"),
        (r"No function matches the given name and argument types.*", "no function takes these types"),
        (r"failed to (?:pin|allocate) .*|could not allocate .*", "out of memory"),
        (r'invalid input syntax for (?:type )?(?P<type>[\w ]+)(?:: ".*)?', _UNFIT),
        (r'value ".*" is out of range for type (?P<type>[\w ]+)', _UNFIT),
        (r"(?P<type>[\w ]+) out of range", "a number is out of the range of {type}"),
        (r'(?P<type>[\w]+)(?:/time)? (?:field )?value out of range: ".*', _UNFIT),
        (r"division by zero", "division by zero"),
        (r"divide by zero.*|division by zero: .*", "division by zero"),
        (r'column "?(?P<missing>.*?)"? does not exist', "there is no column {missing}"),
        (r'relation "(?P<name>.*?)" does not exist', "there is no relation {name}"),
        (r"function (?P<name>.*?)\(.*\) does not exist", "no function {name} takes these types"),
        (r'type "(?P<name>.*?)" does not exist', "there is no type {name}"),
        (r"syntax error at (?:or near .*|end of input)", "syntax error"),
        (r"permission denied for .*", "permission denied"),
        (r"(?:\w+ \(\w+\): )?(?P<type>\w+) value '.*' is not recognized", _UNFIT),
        (r"(?:\w+ \(\w+\): )?(?P<type>\w+) '.*' is not recognized", _UNFIT),
        (r".*\binvalid identifier '(?P<missing>[^']*)'", "there is no column {missing}"),
        (r".*\bUnrecognized name: (?P<missing>\w+).*", "there is no column {missing}"),
        (r"(?:\d+ )?(?:Bad|Invalid) (?P<type>\w+)(?: value)?: .*", _UNFIT),
        (r"(?:\d+ )?(?:\w+ \S+: )?Not found: (?:Dataset|Project|Table) .*", "there is no such relation"),
        (r"(?:\d+ )?(?:\w+ \S+: )?Access Denied: .*", "permission denied"),
        (r"(?:\d+ )?Syntax error: .*", "syntax error"),
        (r'\[CAST_INVALID_INPUT\] .* cannot be cast to "?(?P<type>\w+)(?:\([^()]*\))?"? .*', _UNFIT),
        (r"\[UNRESOLVED_COLUMN\S*\] .* with name (?P<missing>\S+) cannot .*", "there is no column {missing}"),
        (r"\[TABLE_OR_VIEW_NOT_FOUND\] .*", "there is no such relation"),
        (r"\[PARSE_SYNTAX_ERROR\] .*", "syntax error"),
        (r"syntax error line \d+ at position \d+ unexpected .*", "syntax error"),
        (
            r"(?:Object|Table|View|Schema|Database) '(?P<name>[^']*)' does not exist or not authorized\.?",
            "there is no relation {name}, or the role may not see it",
        ),
        (r"\[DIVIDE_BY_ZERO\] .*", "division by zero"),
    )
)
# Before the message: Snowflake's number and SQLSTATE, DuckDB's kind.
_KIND = re.compile(
    r"\A(?:\d{6} \([0-9A-Z]{5}\): )?(?:[0-9a-f-]{36}: )?(?:SQL (?:compilation|execution) error:\s*)?"
    r"(?:[A-Z][A-Za-z ]{2,30} Error: )?"
)
_EXCERPT = re.compile(r"\nLINE (\d{1,6}): ([^\n]*)\n( *)(\^+)")
_LOOKED_AT_CHARS = 4_000  # at each end of a text


def _shape(text: str, known: _Statement) -> tuple[str, bool]:
    """What the message means, and whether it says more than that."""
    if len(text) > 2 * _LOOKED_AT_CHARS:
        text = text[:_LOOKED_AT_CHARS] + text[-_LOOKED_AT_CHARS:]
    cut = text.rfind("\nLINE ")
    message = _KIND.sub("", text[: cut if cut >= 0 else None].strip(), count=1)
    for pattern, words in _SHAPES:
        if found := pattern.fullmatch(message):
            return _filled(words, found.groupdict(), known), found.re.groups > 0 or ".*" in pattern.pattern
    return "", True


def _filled(words: str, groups: dict[str, str | None], known: _Statement) -> str:
    names = {name: known.spelling(_unquoted(groups.get(name) or "")) for name in ("missing", "name", "column")}
    said = words.format(type=_type(groups.get("type") or ""), missing=names["missing"], name=names["name"])
    if groups.get("missing"):
        said += known.near(names["missing"])
    return f"{said}, in column {names['column']}" if groups.get("column") else said


def _unquoted(name: str) -> str:
    return name.strip("\"`'").rpartition(".")[2].strip("\"`'") if name else name


# What is said of a connection: found anywhere in the text, shown in our words.
_LINK: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"authentication failed|incorrect username or password", "password authentication failed"),
        (r"no pg_hba.conf entry", "the server lets no such user in from here (pg_hba.conf)"),
        (r"no password supplied", "the server asks for a password"),
        (r"certificate (?:verify failed|has expired)|self.signed certificate", "its certificate is not trusted"),
        (r"does not support SSL|SSL SYSCALL|SSL error|\bTLS\b", "TLS failed"),
        (r"role .* does not exist", "there is no such user"),
        (r"database .* does not exist", "there is no such database"),
        (r"too many (?:clients|connections)|connection slots", "the server has too many connections"),
        (r"starting up", "the server is starting up"),
        (r"shutting down|administrator command", "the server is shutting down"),
        (r"connection refused", "Connection refused"),
        (r"timed? ?out", "no answer in time"),
        (r"could not translate host name|name or service not known|name resolution|getaddrinfo", "unknown host name"),
        (r"no route to host|network is unreachable", "there is no way to its network"),
        (r"no such file or directory", "there is no such file or socket"),
        (r"closed the connection|connection (?:was )?(?:reset|aborted|closed|terminated)|broken pipe|EOF detected",
         "the connection was closed"),
        (r"permission denied|not authori[sz]ed|access denied|insufficient privilege", "permission denied"),
        (r"not a valid DuckDB database", "not a valid DuckDB database"),
        (r"no space left|disk full", "the disk is full"),
        (r"out of memory", "out of memory"),
    )
)  # fmt: skip


def _link(text: str) -> tuple[str, bool]:
    return next((words for pattern, words in _LINK if pattern.search(text)), ""), True


_LINES = (
    re.compile(r"\bline (?P<line>\d{1,6}),? (?:at )?pos(?:ition)? (?P<column>\d{1,6})", re.IGNORECASE),
    re.compile(r"\bat \[(?P<line>\d{1,6}):(?P<column>\d{1,6})\]"),
)
_SHOWN_CHARS = 60


def _place(foreign: Foreign, where: str | None) -> str:
    """The expression of ours that the database points at, and whether it stands in the condition."""
    span = _span(foreign)
    if span is None:
        return ""
    start, end = span
    ours = " ".join(foreign.sql[start:end].split())
    shown = f"at `{ours[:_SHOWN_CHARS]}{'…' if len(ours) > _SHOWN_CHARS else ''}`"
    begins = foreign.sql.rfind(f"(\n{where}\n)") + 2 if where else 0
    if begins > 1 and begins <= start < begins + len(where or ""):
        line = foreign.sql.count("\n", begins, start) + 1
        return (
            f"{shown} in line {line} of the condition" if "\n" in (where or "").strip() else f"{shown} in the condition"
        )
    return shown


def _span(foreign: Foreign) -> tuple[int, int] | None:
    """From where to where; None if what the text says of it is no place of our statement."""
    sql, lines = foreign.sql, foreign.sql.split("\n")
    if foreign.position is not None:
        return _token(sql, foreign.position)
    if excerpts := list(_EXCERPT.finditer(foreign.text)):
        number, quoted, blanks, carets = excerpts[-1].groups()
        at = len(blanks) - len(f"LINE {number}: ")
        marked = quoted[at : at + len(carets)] if at >= 0 else ""
        line = int(number) - 1
        found = lines[line].find(quoted.strip(".")) if line < len(lines) and marked else -1
        place = found + at - (len(quoted) - len(quoted.lstrip(".")))
        if found >= 0 <= place and lines[line].startswith(marked, place):
            begins = sum(len(each) + 1 for each in lines[:line]) + place
            return _whole(sql, begins, begins + len(marked))
        return None
    for pattern in _LINES:
        if (named := pattern.search(foreign.text)) and 0 < int(named["line"]) <= len(lines):
            line = int(named["line"]) - 1
            column = min(int(named["column"]), len(lines[line]))
            return _token(sql, sum(len(each) + 1 for each in lines[:line]) + column)
    return None


def _whole(sql: str, start: int, end: int) -> tuple[int, int]:
    """The span with the tokens that it cuts: a part of a name is no word of ours."""
    met = [found.span() for found in _TOKENS.finditer(sql) if found.start() < end and start < found.end()]
    return min([start, *(first for first, _ in met)]), max([end, *(last for _, last in met)])


def _token(sql: str, position: int) -> tuple[int, int] | None:
    """The identifier at that character of our statement, or the sign."""
    for found in _TOKENS.finditer(sql):
        if found.start() <= position < found.end():
            return found.span() if found["quoted"] or found["bare"] else None
    return (position, position + 1) if 0 <= position < len(sql) and not sql[position].isspace() else None
