"""The three doors by which records are written: single records, collections, Bulk 2.0 files. One interface for laws."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from .datarules import Refusal, Rule, Verdict, World, cell_verdict, json_verdict, key_verdict
from .mounted import Mounted

DELIMITERS = {"COMMA": ",", "TAB": "\t", "SEMICOLON": ";", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}
ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
# A value as each door is given it: JSON, and a cell. What a row does not name is not sent.
Wire = tuple[Any, str]
Row = dict[str, Wire]


@dataclass(frozen=True)
class Reply:
    """What became of one row: its record, whether that is new, or what was said instead."""

    id: str = ""
    created: bool = False
    errors: tuple[Refusal, ...] = ()
    text: str = ""  # Bulk says all errors of a row in one text
    status: int = 0

    @property
    def refused(self) -> bool:
        return bool(self.errors or self.text)

    def said(self, refusal: Refusal) -> bool:
        """Whether this refusal, alone, is what was said."""
        return self.text == bulk_text(refusal) if self.text else self.errors == (refusal,)

    def among(self, refusals: list[Refusal]) -> bool:
        """Whether everything said is one of these refusals."""
        if not self.text:
            return set(self.errors) <= set(refusals)
        left = self.text
        for refusal in sorted(refusals, key=lambda r: -len(bulk_text(r))):
            left = left.replace(bulk_text(refusal), "")
        return not left.strip()


def bulk_text(refusal: Refusal) -> str:
    message = refusal.message
    if refusal.code == "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST":
        message = escape(message, {"'": "&#39;", '"': "&quot;"})
    return f"{refusal.code}:{message}:{' '.join((*refusal.fields, '--'))}"


class Door:
    """One way in, to an object of its own."""

    single = False

    def __init__(self, org: Mounted, object_name: str, rules: dict[str, Rule], world: World) -> None:
        self.org = org
        self.object = object_name
        self.rules = rules
        self.world = world

    def link(self, name: str) -> Rule | None:
        """The lookup that `Link__r.Code__c` names."""
        return self.rules[name.replace("__r.Code__c", "__c")] if "." in name else None

    def verdicts(self, rows: list[Row]) -> list[dict[str, Verdict]]:
        """What the rules say of each value, by the field it is for."""
        return [
            {
                (link.name if link else name): key_verdict(link, wire[0], self.world) if link
                else json_verdict(self.rules[name], wire[0], self.world, single=self.single)
                for name, wire in row.items() for link in [self.link(name)]
            }
            for row in rows
        ]  # fmt: skip

    def body(self, row: Row) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name, (value, _) in row.items():
            if "." in name:
                relation, key = name.split(".")
                body[relation] = {key: value}
            else:
                body[name] = value
        return body

    def insert(self, rows: list[Row]) -> list[Reply]:
        raise NotImplementedError

    def update(self, rid: str, row: Row) -> Reply:
        raise NotImplementedError

    def upsert(self, key: Rule, wire: Wire, row: Row) -> Reply:
        raise NotImplementedError

    def delete(self, rid: str) -> Reply:
        raise NotImplementedError


class Singles(Door):
    single = True

    def insert(self, rows: list[Row]) -> list[Reply]:
        return [self.sent("POST", f"/sobjects/{self.object}", self.body(row), created=True) for row in rows]

    def update(self, rid: str, row: Row) -> Reply:
        return self.sent("PATCH", f"/sobjects/{self.object}/{rid}", self.body(row), rid)

    def upsert(self, key: Rule, wire: Wire, row: Row) -> Reply:
        path = f"/sobjects/{self.object}/{key.name}/{quote(str(wire[0]), safe='')}"
        return self.sent("PATCH", path, self.body(row))

    def delete(self, rid: str) -> Reply:
        return self.sent("DELETE", f"/sobjects/{self.object}/{rid}", None, rid)

    def sent(self, method: str, path: str, body: Any, rid: str = "", *, created: bool = False) -> Reply:
        reply = self.org.api(method, path, body)
        if reply.status_code < 300:
            said = reply.json if reply.status_code != 204 else {"id": rid}
            assert isinstance(said, dict)
            return Reply(said["id"], bool(said.get("created", created)), status=reply.status_code)
        assert isinstance(reply.json, list)
        if reply.status_code == 300:
            return Reply(text="several", status=300)
        errors = tuple(Refusal(e["errorCode"], e["message"], tuple(e.get("fields", ()))) for e in reply.json)
        assert errors and reply.status_code in (400, 404)
        return Reply(errors=errors, status=reply.status_code)


class Collections(Door):
    def insert(self, rows: list[Row]) -> list[Reply]:
        return self.sent("POST", "/composite/sobjects", [self.body(row) for row in rows], created=True)

    def update(self, rid: str, row: Row) -> Reply:
        return self.sent("PATCH", "/composite/sobjects", [{"id": rid, **self.body(row)}])[0]

    def upsert(self, key: Rule, wire: Wire, row: Row) -> Reply:
        path = f"/composite/sobjects/{self.object}/{key.name}"
        return self.sent("PATCH", path, [{key.name: wire[0], **self.body(row)}])[0]

    def delete(self, rid: str) -> Reply:
        return self.items(self.org.api("DELETE", f"/composite/sobjects?ids={rid}"), created=False)[0]

    def sent(self, method: str, path: str, records: list[dict[str, Any]], *, created: bool = False) -> list[Reply]:
        kind = {"attributes": {"type": self.object}}
        reply = self.org.api(method, path, {"records": [{**kind, **r} for r in records]})
        return self.items(reply, created=created)

    @staticmethod
    def items(reply: Any, *, created: bool) -> list[Reply]:
        assert reply.status_code == 200, reply.text
        return [
            Reply(
                item.get("id", ""), item["success"] and bool(item.get("created", created)),
                tuple(Refusal(e["statusCode"], e["message"], tuple(e["fields"])) for e in item["errors"]),
            )
            for item in reply.json
        ]  # fmt: skip


class Bulk(Door):
    """Rows are told apart by `Row__c`, a text that each has to itself. `dialect` is how its files are written."""

    dialect = ("COMMA", "LF")

    def columns(self, rows: list[Row]) -> list[str]:
        return list(dict.fromkeys(name for row in rows for name in row))

    def verdicts(self, rows: list[Row]) -> list[dict[str, Verdict]]:
        places = {name: at for at, name in enumerate(self.columns(rows))}
        return [self._cells(row, places, 0) for row in rows]

    def shifted(self, row: Row) -> dict[str, Verdict]:
        """The verdicts of a row whose file has one column before it: the Id, or the key."""
        return self._cells(row, {name: at for at, name in enumerate(row)}, 1)

    def _cells(self, row: Row, places: dict[str, int], before: int) -> dict[str, Verdict]:
        found = {}
        for name, (_, cell) in row.items():
            link = self.link(name)
            if link is None:
                found[name] = cell_verdict(self.rules[name], cell, self.world, places[name] + before)
            elif cell == "":
                found[link.name] = Verdict(given=False)
            else:
                found[link.name] = key_verdict(link, None if cell == "#N/A" else cell, self.world)
        return found

    def insert(self, rows: list[Row]) -> list[Reply]:
        names = self.columns(rows)
        replies = self.sent("insert", names, [[row.get(n, ("", ""))[1] for n in names] for row in rows])
        return [replies[row["Row__c"][1]] for row in rows]

    def update(self, rid: str, row: Row) -> Reply:
        return next(iter(self.sent("update", ["Id", *row], [[rid, *(c for _, c in row.values())]]).values()))

    def upsert(self, key: Rule, wire: Wire, row: Row) -> Reply:
        cells = [wire[1], *(c for _, c in row.values())]
        return next(iter(self.sent("upsert", [key.name, *row], [cells], externalIdFieldName=key.name).values()))

    def delete(self, rid: str) -> Reply:
        return next(iter(self.sent("delete", ["Id"], [[rid]]).values()))

    def sent(self, operation: str, names: list[str], cells: list[list[str]], **more: Any) -> dict[str, Reply]:
        file = io.StringIO()
        delimiter, ending = self.dialect
        writer = csv.writer(
            file, delimiter=DELIMITERS[delimiter], lineterminator=ENDINGS[ending], quoting=csv.QUOTE_ALL
        )
        writer.writerows([names, *cells])
        more |= {"columnDelimiter": delimiter, "lineEnding": ending}
        job = self.org.job(self.object, file.getvalue().encode(), operation, **more)
        info = self.org.info(job)
        assert info["state"] == "JobComplete", (info, file.getvalue())
        replies = {}
        for row in self.results(job, "successfulResults"):
            replies[row.get("Row__c", "")] = Reply(row["sf__Id"], row["sf__Created"] == "true")
        for row in self.results(job, "failedResults"):
            replies[row.get("Row__c", "")] = Reply(text=row["sf__Error"])
        assert len(replies) == len(cells) == info["numberRecordsProcessed"]
        assert info["numberRecordsFailed"] == sum(r.refused for r in replies.values())
        return replies

    def results(self, job: str, which: str) -> list[dict[str, str]]:
        text = io.StringIO(self.org.results(job, which), newline="")
        return list(csv.DictReader(text, delimiter=DELIMITERS[self.dialect[0]]))
