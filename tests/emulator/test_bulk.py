"""Bulk API 2.0 ingest: the life of a job, cells, headers, result files, whole-job failures."""

# ruff: noqa: E501 (Salesforce's messages are kept whole)

from __future__ import annotations

import csv
import gzip
import io
import itertools
from typing import Any

import pytest

from .conftest import Org

_numbers = itertools.count()


def key() -> str:
    return f"bulk-{next(_numbers)}"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def upsert(org: Org, text: str | bytes, **more: Any) -> tuple[dict[str, Any], str]:
    return org.bulk("upsert", "Customer__c", text, externalIdFieldName="Code__c", **more)


def test_a_job_lives_from_open_to_complete(org: Org) -> None:
    spec = {"object": "customer__c", "operation": "upsert", "externalIdFieldName": "code__c", "lineEnding": "LF"}
    made = org.post("/jobs/ingest/", spec)
    assert list(made.json()) == [
        "id", "operation", "object", "createdById", "createdDate", "systemModstamp", "state", "externalIdFieldName",
        "concurrencyMode", "contentType", "apiVersion", "contentUrl", "lineEnding", "columnDelimiter",
    ]  # fmt: skip
    job = made.json()
    assert (job["state"], job["apiVersion"], job["object"]) == ("Open", 62.0, "Customer__c")
    assert job["contentUrl"] == f"services/data/v62.0/jobs/ingest/{job['id']}/batches"
    assert job["id"].startswith("750") and len(job["id"]) == 18
    assert org.get(f"/jobs/ingest/{job['id']}/successfulResults").status_code == 400
    one = key()
    sent = org.http.put(
        f"{org.url}/{job['contentUrl']}/", data=iter([b"Code__c,Name\n", f'{one},"n"\n'.encode()]),
        headers={"Content-Type": "text/csv"},
    )  # fmt: skip
    assert (sent.status_code, sent.content) == (201, b"")
    assert org.get(f"/jobs/ingest/{job['id']}").json()["state"] == "Open"
    again = org.put(job["id"], "Code__c\nx\n")
    assert (again.status_code, again.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")
    closed = org.close_job(job["id"])
    assert closed.json()["state"] == "UploadComplete" and "contentUrl" not in closed.json()
    assert org.close_job(job["id"]).status_code == 400
    info = org.wait(job["id"])
    assert (info["state"], info["numberRecordsProcessed"], info["numberRecordsFailed"]) == ("JobComplete", 1, 0)
    assert (info["jobType"], info["retries"]) == ("V2Ingest", 0)
    abort = org.patch(f"/jobs/ingest/{job['id']}", {"state": "Aborted"})
    assert abort.json() == [{"message": "Aborting already Completed Job not allowed", "errorCode": "INVALIDJOBSTATE"}]
    listed = org.get("/jobs/ingest").json()
    assert listed["done"] is True and job["id"] in {j["id"] for j in listed["records"]}
    assert org.delete(f"/jobs/ingest/{job['id']}").status_code == 204
    assert org.get(f"/jobs/ingest/{job['id']}").json()[0]["errorCode"] == "NOT_FOUND"


def test_results_start_with_the_sf_columns_and_repeat_the_values(org: Org) -> None:
    one, two = key(), key()
    info, job = upsert(org, f'Code__c,Name,Amount__c,Email__c\n{one},"a, ""b""\nc",912260031,A@B.co\n{two},x,1,bad\n')
    assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (2, 1)
    good = org.get(f"/jobs/ingest/{job}/successfulResults/")
    assert good.headers["Content-Type"] == "text/csv; charset=UTF-8"
    assert good.text.startswith('"sf__Id","sf__Created",Code__c,Name,Amount__c,Email__c\n"')
    (row,) = rows(good.text)
    assert (row["sf__Created"], row["Name"], row["Amount__c"]) == ("true", 'a, "b"\nc', "9.12260031E8")
    (bad,) = rows(org.results(job, "failedResults"))
    assert bad["sf__Id"] == ""
    assert bad["sf__Error"] == "INVALID_EMAIL_ADDRESS:Email: invalid email address: bad:Email__c --"
    for path in ("unprocessedrecords", "unprocessedRecords"):
        assert org.results(job, path) == "Code__c,Name,Amount__c,Email__c\n"
    again, job = upsert(org, f"Code__c,Name\n{one.upper()},again\n")
    (row,) = rows(org.results(job, "successfulResults"))
    assert (again["numberRecordsFailed"], row["sf__Created"]) == (0, "false")


@pytest.mark.parametrize(
    ("header", "cell", "error"),
    [
        ("Day__c", "2003-04-98", "INVALID_FIELD:Failed to deserialize field at col 1. Due to, '2003-04-98' is not a valid "
         "value for the type xsd:date:--"),
        ("Moment__c", "2003-04-01", "INVALID_FIELD:Failed to deserialize field at col 1. Due to, '2003-04-01' is not a "
         "valid value for the type xsd:dateTime:--"),
        ("Amount__c", "1 000", "INVALID_FIELD:Failed to deserialize field at col 1. Due to, '1 000' is not a valid value "
         "for the type xsd:double:--"),
        ("Active__c", "yes", "INVALID_FIELD:Failed to deserialize field at col 1. Due to, 'yes' is not valid for type "
         "xsd:boolean, should be '0', '1', 'true' or 'false':--"),
        ("Tier__c", "gold", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:Tier: bad value for restricted picklist field: "
         "gold:Tier__c --"),
        ("Plan__c", "x" * 256, f"STRING_TOO_LONG:Plan: data value too large: {'x' * 256} (max length=255):Plan__c --"),
        ("Price__c", "1e14", "NUMBER_OUTSIDE_VALID_RANGE:Price: value outside of valid range on numeric field: "
         "1.0E14:Price__c --"),
        ("Price__c", "NaN", "INVALID_FIELD:Failed to deserialize field at col 1. Due to, 'NaN' is not a valid value for "
         "the type xsd:double:--"),
        ("Account__c", "001", "MALFORMED_ID:Account: id value of incorrect type: 001:Account__c --"),
        ("Account__r.Code__c", "gone", "INVALID_FIELD:Foreign key external ID: gone not found for field Code__c in entity "
         "Account:--"),
        ("Id", "001", "INVALID_FIELD_FOR_INSERT_UPDATE:Unable to create/update fields: Id. Please check the security "
         "settings of this field and verify that it is read/write for your profile or permission set.:Id --"),
    ],
)  # fmt: skip
def test_a_bad_cell_fails_its_row_alone(org: Org, header: str, cell: str, error: str) -> None:
    one, two = key(), key()
    info, job = upsert(org, f'Code__c,{header}\n{one},"{cell}"\n{two},\n')
    assert (info["state"], info["numberRecordsProcessed"], info["numberRecordsFailed"]) == ("JobComplete", 2, 1)
    (bad,) = rows(org.results(job, "failedResults"))
    assert (bad["Code__c"], bad["sf__Error"]) == (one, error)
    assert [r["Code__c"] for r in rows(org.results(job, "successfulResults"))] == [two]


def test_a_value_is_escaped_in_the_error_of_a_restricted_picklist(org: Org) -> None:
    _, job = org.bulk("insert", "Customer__c", "Tier__c\nMacy's <b> & co\n")
    assert "field: Macy&#39;s &lt;b&gt; &amp; co:Tier__c --" in org.results(job, "failedResults")


def test_an_empty_cell_is_ignored_and_na_clears(org: Org) -> None:
    one = key()
    upsert(org, f"Code__c,Plan__c,Amount__c,Active__c,Source__c\n{one},basic,5,false,\n")
    where = f"SELECT Plan__c, Amount__c, Active__c, Source__c FROM Customer__c WHERE Code__c = '{one}'"
    (record,) = org.query(where)
    assert (record["Plan__c"], record["Active__c"], record["Source__c"]) == ("basic", False, "dbt")
    upsert(org, f"Code__c,Plan__c,Amount__c,Active__c\n{one},,#N/A,\n")
    (record,) = org.query(where)
    assert (record["Plan__c"], record["Amount__c"], record["Active__c"]) == ("basic", None, False)


def test_insert_update_delete(org: Org) -> None:
    _, job = org.bulk("insert", "Account", "Name,Code__c\nA,x1\nB,x2\n,x3\n")
    made = {r["Code__c"]: r["sf__Id"] for r in rows(org.results(job, "successfulResults"))}
    assert set(made) == {"x1", "x2"}
    (bad,) = rows(org.results(job, "failedResults"))
    assert bad["sf__Error"] == "REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --"
    gone = "001" + made["x1"][3:6] + "0000zzzzz"
    text = f"Id,Name\n{made['x1'][:15]},A2\n{gone},x\n,y\n{made['x2']},#N/A\n"
    info, job = org.bulk("update", "Account", text)
    assert info["numberRecordsFailed"] == 3
    (row,) = rows(org.results(job, "successfulResults"))
    assert (row["sf__Id"], row["sf__Created"]) == (made["x1"], "false")
    errors = {r["Id"]: r["sf__Error"] for r in rows(org.results(job, "failedResults"))}
    assert errors[gone] == "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--"
    assert errors[""].startswith("MISSING_ARGUMENT:Id not specified")
    assert errors[made["x2"]].startswith("REQUIRED_FIELD_MISSING")
    info, job = org.bulk("delete", "Account", f"Id\n{made['x1']}\n{made['x2']}\n")
    assert info["numberRecordsFailed"] == 0
    info, job = org.bulk("delete", "Account", f"Id\n{made['x1']}\n")
    (bad,) = rows(org.results(job, "failedResults"))
    assert (bad["sf__Error"], bad["sf__Id"]) == ("ENTITY_IS_DELETED:entity is deleted:--", made["x1"])


def test_upsert_by_id_creates_rows_without_one(org: Org) -> None:
    rid = org.create("Account", {"Name": "old"})
    _, job = org.bulk("upsert", "Account", f"Id,Name\n{rid},new\n,fresh\n", externalIdFieldName="Id")
    assert {r["Name"]: r["sf__Created"] for r in rows(org.results(job, "successfulResults"))} == {
        "new": "false", "fresh": "true",
    }  # fmt: skip
    assert org.read("Account", rid)["Name"] == "new"


def test_an_empty_id_column_beside_the_external_id_is_accepted(org: Org) -> None:
    info, _ = upsert(org, f"Id,Code__c,Name\n,{key()},A\n")
    assert (info["state"], info["numberRecordsFailed"]) == ("JobComplete", 0)


def test_copies_in_one_chunk_all_fail_and_across_chunks_the_later_updates(org: Org) -> None:
    one, two = key(), key()
    info, job = upsert(org, f"Code__c,Name\n{one},a\n{two},b\n{one.upper()},c\n")
    assert info["numberRecordsFailed"] == 2
    errors = {r["sf__Error"] for r in rows(org.results(job, "failedResults"))}
    assert errors == {f"DUPLICATE_VALUE:Duplicate external id specified: {k}:Code__c --" for k in (one, one.upper())}
    three = key()
    filler = "".join(f"{key()},f\n" for _ in range(200))
    info, job = upsert(org, f"Code__c,Name\n{three},first\n{filler}{three},second\n")
    assert info["numberRecordsFailed"] == 0
    made = [r["sf__Created"] for r in rows(org.results(job, "successfulResults")) if r["Code__c"] == three]
    assert sorted(made) == ["false", "true"]
    assert org.query(f"SELECT Name FROM Customer__c WHERE Code__c = '{three}'")[0]["Name"] == "second"


def test_result_rows_are_not_in_upload_order(org: Org) -> None:
    keys = [key() for _ in range(50)]
    _, job = upsert(org, "Code__c\n" + "".join(f"{k}\n" for k in keys))
    got = [r["Code__c"] for r in rows(org.results(job, "successfulResults"))]
    assert got != keys and sorted(got) == sorted(keys)
    assert got == [r["Code__c"] for r in rows(org.results(job, "successfulResults"))]


def test_a_parent_by_external_id(org: Org) -> None:
    account, one = key(), key()
    rid = org.create("Account", {"Name": "p", "Code__c": account})
    _, job = upsert(org, f"Code__c,Account__r.Code__c\n{one},{account}\n")
    (row,) = rows(org.results(job, "successfulResults"))
    assert row["Account__r.Code__c"] == account
    record = org.query(f"SELECT Account__c, Account__r.Name FROM Customer__c WHERE Code__c = '{one}'")[0]
    assert (record["Account__c"], record["Account__r"]["Name"]) == (rid, "p")


@pytest.mark.parametrize(
    ("operation", "text", "message", "more"),
    [
        ("upsert", "Code__c,Nope__c,Other__c\na,b,c\n", "InvalidBatch : Field name not found : Nope__c", {}),
        ("upsert", "\ufeffCode__c,Name\na,b\n", "InvalidBatch : Field name not found : \ufeffCode__c", {}),
        ("upsert", '\ufeff"Code__c",Name\na,b\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote", {}),
        ("upsert", "Code__c,Name\na,b\"c\n", "InvalidBatch : Failed to parse CSV. Found unescaped quote", {}),
        ("upsert", 'Code__c,Name\na, "b"\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote", {}),
        ("upsert", 'Code__c,Name\na,"b\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote", {}),
        ("upsert", "Code__c,Customer:Account__r.Code__c\na,b\n", "InvalidBatch : type is not needed for non polymorphic "
         "foreign key references: Account__r", {}),
        ("upsert", "Code__c,Acount__r.Code__c\na,b\n", "InvalidBatch : Unable to find relationship: Acount__r", {}),
        ("upsert", "Name\na\n", "InvalidBatch : Field name not found : Code__c", {}),
        ("update", "Name\na\n", "InvalidBatch : Field name not found : Id", {}),
        ("upsert", "Code__c,Name\r\na,b\r\n", "ClientInputError : LineEnding is invalid on user data. Current LineEnding "
         "setting is LF", {}),
        ("upsert", 'Code__c,Name\na,"b\r\nc"\n', "ClientInputError : LineEnding is invalid on user data. Current "
         "LineEnding setting is LF", {}),
        ("upsert", "Code__c,Name\na,b\n", "ClientInputError : LineEnding is invalid on user data. Current LineEnding "
         "setting is CRLF", {"lineEnding": "CRLF"}),
    ],
)  # fmt: skip
def test_a_bad_file_fails_the_whole_job_with_everything_unprocessed(
    org: Org, operation: str, text: str, message: str, more: dict[str, str]
) -> None:
    if operation == "upsert":
        more = {**more, "externalIdFieldName": "Code__c"}
    info, job = org.bulk(operation, "Customer__c", text, **more)
    assert (info["state"], info["errorMessage"]) == ("Failed", message)
    assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (0, 0)
    assert org.results(job, "unprocessedrecords") == text
    assert rows(org.results(job, "successfulResults")) == []


def test_a_header_in_another_case_matches_but_loses_its_values_in_results(org: Org) -> None:
    one = key()
    _, job = upsert(org, f"code__c,NAME\n{one},n\n".replace("code__c", "Code__c"))
    (row,) = rows(org.results(job, "successfulResults"))
    assert (row["Code__c"], row["NAME"]) == (one, "")
    assert org.query(f"SELECT Name FROM Customer__c WHERE Code__c = '{one}'")[0]["Name"] == "n"


@pytest.mark.parametrize(("name", "mark"), [("SEMICOLON", ";"), ("TAB", "\t"), ("PIPE", "|"), ("CARET", "^")])
def test_delimiters_and_crlf(org: Org, name: str, mark: str) -> None:
    one = key()
    text = f'Code__c{mark}Plan__c\r\n{one}{mark}"a{mark}b\nc"\r\n'
    info, job = upsert(org, text, columnDelimiter=name, lineEnding="CRLF")
    assert (info["state"], info["numberRecordsFailed"]) == ("JobComplete", 0)
    assert org.query(f"SELECT Plan__c FROM Customer__c WHERE Code__c = '{one}'")[0]["Plan__c"] == f"a{mark}b\nc"
    assert org.results(job, "successfulResults").endswith(f'"{one}"{mark}"a{mark}b\nc"\r\n')


def test_another_charset_is_recoded(org: Org) -> None:
    one = key()
    job = org.open_job("upsert", "Customer__c", externalIdFieldName="Code__c")
    reply = org.put(
        job, f"Code__c,Plan__c\n{one},café\n".encode("latin-1"), **{"Content-Type": "text/csv; charset=ISO-8859-1"}
    )
    assert reply.status_code == 201
    org.close_job(job)
    assert org.wait(job)["numberRecordsFailed"] == 0
    assert org.query(f"SELECT Plan__c FROM Customer__c WHERE Code__c = '{one}'")[0]["Plan__c"] == "café"


def test_a_header_alone_completes_with_no_rows(org: Org) -> None:
    for text in ("Code__c,Name\n", "Code__c,Name"):
        info, job = upsert(org, text)
        assert (info["state"], info["numberRecordsProcessed"]) == ("JobComplete", 0)
        assert rows(org.results(job, "successfulResults")) == []


def test_an_aborted_job_takes_no_more_data_and_keeps_its_rows_unprocessed(org: Org) -> None:
    job = org.open_job("upsert", "Customer__c", externalIdFieldName="Code__c")
    org.put(job, "Code__c\nz\n")
    assert org.patch(f"/jobs/ingest/{job}", {"state": "Aborted"}).json()["state"] == "Aborted"
    assert org.put(job, "Code__c\nz\n").status_code == 400
    assert org.results(job, "unprocessedrecords") == "Code__c\nz\n"
    open_job = org.open_job("insert", "Account")
    early = org.delete(f"/jobs/ingest/{open_job}")
    assert early.json()[0] == {
        "message": "Error encountered when deleting the job because the job is not terminated",
        "errorCode": "API_ERROR",
    }


def test_multipart_creates_uploads_and_closes_at_once(org: Org) -> None:
    one = key()
    job = '{"object":"Customer__c","operation":"upsert","externalIdFieldName":"Code__c"}'
    parts = {
        "job": (None, job, "application/json"), "content": ("content", f"Code__c\n{one}\n", "text/csv"),
    }  # fmt: skip
    reply = org.http.post(f"{org.base}/jobs/ingest", files=parts)
    assert reply.json()["state"] == "UploadComplete"
    assert org.wait(reply.json()["id"])["numberRecordsProcessed"] == 1


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ({"object": "Account", "operation": "upsert", "externalIdFieldName": "website"}, "INVALIDJOB",
         "InvalidJob : Field name provided, website does not match an External ID, Salesforce Id, or indexed field for "
         "Account"),
        ({"object": "Nothing__c", "operation": "insert"}, "INVALIDENTITY",
         "Entity 'Nothing__c' is not supported by the Bulk API"),
        ({"object": "Account", "operation": "hardDelete"}, "FEATURENOTENABLED", None),
        ({"object": "Account", "operation": "merge"}, "INVALIDJOB", None),
        ({"object": "Account", "operation": "insert", "columnDelimiter": "SPACE"}, "INVALIDJOB", None),
    ],
)  # fmt: skip
def test_a_wrong_job_is_refused_at_create(org: Org, spec: dict[str, str], code: str, message: str | None) -> None:
    reply = org.post("/jobs/ingest", spec)
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, code)
    if message is not None:
        assert reply.json()[0]["message"] == message


def test_a_query_job_pages_by_locator(org: Org) -> None:
    mark = key()
    upsert(
        org,
        "Code__c,Plan__c,Amount__c,Moment__c\n"
        + "".join(f"{key()},{mark},1e7,2020-01-01T00:00:00Z\n" for _ in range(5)),
    )
    soql = f"SELECT Id, Account__r.Name, Amount__c, Active__c, Moment__c FROM Customer__c WHERE Plan__c = '{mark}'"
    job = org.post("/jobs/query", {"operation": "query", "query": soql}).json()
    assert (job["state"], job["lineEnding"]) == ("UploadComplete", "LF")
    info = org.wait(job["id"], "query")
    assert (info["state"], info["numberRecordsProcessed"], info["jobType"]) == ("JobComplete", 5, "V2Query")
    got, locator = [], None
    while locator != "null":
        params = {"maxRecords": 2} | ({"locator": locator} if locator else {})
        page = org.get(f"/jobs/query/{job['id']}/results", params=params)
        got += rows(page.text)
        assert len(rows(page.text)) == int(page.headers["Sforce-NumberOfRecords"])
        locator = page.headers["Sforce-Locator"]
    assert len(got) == 5
    assert {k: v for k, v in got[0].items() if k != "Id"} == {
        "Account__r.Name": "", "Amount__c": "1.0E7", "Active__c": "true", "Moment__c": "2020-01-01T00:00:00.000Z",
    }  # fmt: skip
    assert org.delete(f"/jobs/query/{job['id']}").status_code == 204
    refused = org.post("/jobs/query", {"operation": "query", "query": "SELECT COUNT() FROM Account"})
    assert refused.status_code == 400


def test_result_files_are_gzipped_where_the_client_takes_that(org: Org) -> None:
    _, job = org.bulk("insert", "Account", "Name\n" + "".join(f"packed {i}\n" for i in range(500)))
    query = org.post("/jobs/query", {"operation": "query", "query": "SELECT Name FROM Account"}).json()["id"]
    org.wait(query, "query")
    for path in (f"/jobs/ingest/{job}/successfulResults", f"/jobs/query/{query}/results"):
        plain = org.get(path, headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        packed = org.get(path, headers={"Accept-Encoding": "gzip"}, stream=True)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Content-Type"] == "text/csv; charset=UTF-8"
        data = packed.raw.read(decode_content=False)
        assert len(data) < len(plain.content) / 2
        assert gzip.decompress(data) == plain.content
