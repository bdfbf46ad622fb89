"""The built-in objects: Account, Contact, Lead, Opportunity, Case, User, Organization, RecordType.

Types, lengths and flags follow recorded describes (CumulusCI's cassettes) where they exist; the selection of
fields is ours. Standard picklists are not restricted, as in a new org.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dinmo_dbt.emulator.schema.definitions import Field, PicklistValue, SObject


def system_fields(*, custom: bool, owner: bool = True, master: tuple[Field, ...] = ()) -> tuple[Field, ...]:
    """The fields every record has, around its own. A detail record has no owner of its own."""
    fixed: dict[str, Any] = {"createable": False, "updateable": False, "nillable": False}
    user: dict[str, Any] = {"type": "reference", "length": 18, "reference_to": ("User",)}
    stamped: dict[str, Any] = {**fixed, "defaulted_on_create": True}
    owned = (
        Field(
            name="OwnerId", label="Owner ID", type="reference", length=18, reference_to=("User",),
            relationship_name="Owner", nillable=False, defaulted_on_create=True,
        ),
    )  # fmt: skip
    return (
        Field(name="Id", label="Record ID" if custom else "ID", type="id", length=18, id_lookup=True, **stamped),
        Field(name="IsDeleted", label="Deleted", type="boolean", **stamped),
        *(owned if owner else ()),
        Field(name="CreatedDate", label="Created Date", type="datetime", **stamped),
        Field(name="CreatedById", label="Created By ID", relationship_name="CreatedBy", **user, **stamped),
        Field(name="LastModifiedDate", label="Last Modified Date", type="datetime", **stamped),
        Field(
            name="LastModifiedById", label="Last Modified By ID", relationship_name="LastModifiedBy",
            **user, **stamped,
        ),
        Field(name="SystemModstamp", label="System Modstamp", type="datetime", **stamped),
        *master,
    )  # fmt: skip


def record_type_id() -> Field:
    """The field of an object with record types (recorded describe of Account)."""
    return Field(
        name="RecordTypeId", label="Record Type ID", type="reference", length=18, reference_to=("RecordType",),
        relationship_name="RecordType",
    )  # fmt: skip


def _text(name: str, label: str, length: int, **more: Any) -> Field:
    return Field(name=name, label=label, type=more.pop("type", "string"), length=length, **more)


def _area(name: str, label: str, length: int = 32000, **more: Any) -> Field:
    return Field(name=name, label=label, type="textarea", length=length, long_text=length > 255, **more)


def _pick(name: str, label: str, *values: str, default: str | None = None, **more: Any) -> Field:
    options = tuple(PicklistValue(v, v, True, v == default) for v in values)
    length = more.pop("length", 255)
    return Field(name=name, label=label, type="picklist", length=length, picklist=options, default=default,
                 **more)  # fmt: skip


def _money(name: str, label: str, precision: int = 18, scale: int = 0, **more: Any) -> Field:
    return Field(name=name, label=label, type=more.pop("type", "currency"), precision=precision, scale=scale,
                 **more)  # fmt: skip


def _whole(name: str, label: str, **more: Any) -> Field:
    return Field(name=name, label=label, type="int", digits=8, **more)


def _flag(name: str, label: str, default: bool = False, **more: Any) -> Field:
    return Field(name=name, label=label, type="boolean", nillable=False, defaulted_on_create=True,
                 default=default, **more)  # fmt: skip


def _link(name: str, label: str, *parents: str, **more: Any) -> Field:
    return Field(name=name, label=label, type="reference", length=18, reference_to=parents,
                 relationship_name=name.removesuffix("Id"), **more)  # fmt: skip


def _address(prefix: str, label: str) -> tuple[Field, ...]:
    head = f"{label} " if label else ""
    return (
        _text(f"{prefix}Street", f"{head}Street", 255, type="textarea"),
        _text(f"{prefix}City", f"{head}City", 40),
        _text(f"{prefix}State", f"{head}State/Province", 80),
        _text(f"{prefix}PostalCode", f"{head}Zip/Postal Code", 20),
        _text(f"{prefix}Country", f"{head}Country", 80),
    )


_SOURCES = ("Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other")
_INDUSTRIES = (
    "Agriculture", "Apparel", "Banking", "Biotechnology", "Chemicals", "Communications", "Construction",
    "Consulting", "Education", "Electronics", "Energy", "Engineering", "Entertainment", "Environmental",
    "Finance", "Food & Beverage", "Government", "Healthcare", "Hospitality", "Insurance", "Machinery",
    "Manufacturing", "Media", "Not For Profit", "Recreation", "Retail", "Shipping", "Technology",
    "Telecommunications", "Transportation", "Utilities", "Other",
)  # fmt: skip
_WITHOUT_BIN = ("User", "Organization", "RecordType")  # these have no IsDeleted
# An account takes its contacts and opportunities along and can't go while it has cases (recorded childRelationships
# of Account); what the fields' own describe says of it is unverified.
_OWNED: dict[str, Any] = {"cascade_delete": True, "kept": (("cascadeDelete", False),)}
_HELD: dict[str, Any] = {"restricted_delete": True, "kept": (("restrictedDelete", False),)}
_SALUTATIONS = ("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.")
_FULL_NAME = """trim(coalesce({t}."FirstName" || ' ', '') || coalesce({t}."LastName", ''))"""


def _person(salutation: bool = True) -> tuple[Field, ...]:
    name = _text(
        "Name", "Full Name", 121, name_field=True, nillable=False, createable=False, updateable=False,
        sql=_FULL_NAME,
    )  # fmt: skip
    part: dict[str, Any] = {"kept": (("compoundFieldName", "Name"),)}
    parts = (_text("LastName", "Last Name", 80, nillable=False, **part), _text("FirstName", "First Name", 40, **part))
    greeting = (_pick("Salutation", "Salutation", *_SALUTATIONS, length=40, **part),) if salutation else ()
    return (*parts, *greeting, name)


def _object(name: str, label: str, plural: str, prefix: str, own: tuple[Field, ...], **more: Any) -> SObject:
    owner = more.pop("owner", True)
    head, *tail = system_fields(custom=False, owner=owner)
    head = replace(head, label=f"{label} ID")
    if name in ("Lead", "Case"):  # queues own leads and cases: a polymorphic owner
        tail = [
            replace(f, reference_to=("Group", "User"), name_pointing=True) if f.name == "OwnerId" else f for f in tail
        ]
    deleted, *rest = tail
    if name in _WITHOUT_BIN:
        deleted = replace(deleted, hidden=True)
    return SObject(
        name=name, label=label, label_plural=plural, prefix=prefix, every=(head, deleted, *own, *rest), **more
    )


def standard_objects() -> tuple[SObject, ...]:
    """The built-in objects, without the user's custom fields."""
    account = (
        _text("Name", "Account Name", 255, name_field=True, nillable=False),
        _pick("Type", "Account Type", "Prospect", "Customer - Direct", "Customer - Channel",
              "Channel Partner / Reseller", "Installation Partner", "Technology Partner", "Other"),
        _link("ParentId", "Parent Account ID", "Account", child_relationship_name="ChildAccounts"),
        *_address("Billing", "Billing"), *_address("Shipping", "Shipping"),
        _text("Phone", "Account Phone", 40, type="phone"), _text("Fax", "Account Fax", 40, type="phone"),
        _text("AccountNumber", "Account Number", 40), _text("Website", "Website", 255, type="url"),
        _text("Sic", "SIC Code", 20), _pick("Industry", "Industry", *_INDUSTRIES),
        _money("AnnualRevenue", "Annual Revenue"), _whole("NumberOfEmployees", "Employees"),
        _pick("Ownership", "Ownership", "Public", "Private", "Subsidiary", "Other"),
        _text("TickerSymbol", "Ticker Symbol", 20), _area("Description", "Account Description"),
        _pick("Rating", "Account Rating", "Hot", "Warm", "Cold"), _text("Site", "Account Site", 80),
        _pick("AccountSource", "Account Source", *_SOURCES),
    )  # fmt: skip
    contact = (
        _link("AccountId", "Account ID", "Account", **_OWNED), *_person(), *_address("Mailing", "Mailing"),
        *_address("Other", "Other"), _text("Phone", "Business Phone", 40, type="phone"),
        _text("Fax", "Business Fax", 40, type="phone"), _text("MobilePhone", "Mobile Phone", 40, type="phone"),
        _text("HomePhone", "Home Phone", 40, type="phone"),
        _link("ReportsToId", "Reports To ID", "Contact"),
        _text("Email", "Email", 80, type="email", id_lookup=True), _text("Title", "Title", 128),
        _text("Department", "Department", 80), _pick("LeadSource", "Lead Source", *_SOURCES),
        Field(name="Birthdate", label="Birthdate", type="date"), _area("Description", "Contact Description"),
        _flag("HasOptedOutOfEmail", "Email Opt Out"), _flag("DoNotCall", "Do Not Call"),
    )  # fmt: skip
    lead = (
        *_person(), _text("Title", "Title", 128), _text("Company", "Company", 255, nillable=False),
        *_address("", ""), _text("Phone", "Phone", 40, type="phone"),
        _text("MobilePhone", "Mobile Phone", 40, type="phone"), _text("Fax", "Fax", 40, type="phone"),
        _text("Email", "Email", 80, type="email", id_lookup=True),
        _text("Website", "Website", 255, type="url"), _area("Description", "Description"),
        _pick("LeadSource", "Lead Source", *_SOURCES),
        _pick("Status", "Status", "Open - Not Contacted", "Working - Contacted", "Closed - Converted",
              "Closed - Not Converted", default="Open - Not Contacted", nillable=False,
              defaulted_on_create=True),
        _pick("Industry", "Industry", *_INDUSTRIES), _pick("Rating", "Rating", "Hot", "Warm", "Cold"),
        _money("AnnualRevenue", "Annual Revenue"), _whole("NumberOfEmployees", "Employees"),
        _flag("HasOptedOutOfEmail", "Email Opt Out"), _flag("DoNotCall", "Do Not Call"),
        _flag("IsConverted", "Converted", createable=False, updateable=False),
        _flag("IsUnreadByOwner", "Unread By Owner", default=True),
    )  # fmt: skip
    closed = """({t}."StageName" IN ('Closed Won', 'Closed Lost'))"""
    opportunity = (
        _link("AccountId", "Account ID", "Account", **_OWNED),
        _text("Name", "Name", 120, name_field=True, nillable=False, id_lookup=True),
        _area("Description", "Description"),
        _pick("StageName", "Stage", "Prospecting", "Qualification", "Needs Analysis", "Value Proposition",
              "Id. Decision Makers", "Perception Analysis", "Proposal/Price Quote", "Negotiation/Review",
              "Closed Won", "Closed Lost", nillable=False),
        _money("Amount", "Amount", 18, 2),
        _money("Probability", "Probability (%)", 3, 0, type="percent"),
        _money("TotalOpportunityQuantity", "Quantity", 18, 2, type="double"),
        Field(name="CloseDate", label="Close Date", type="date", nillable=False),
        _pick("Type", "Opportunity Type", "Existing Customer - Upgrade", "Existing Customer - Replacement",
              "Existing Customer - Downgrade", "New Customer"),
        _text("NextStep", "Next Step", 255), _pick("LeadSource", "Lead Source", *_SOURCES),
        _flag("IsClosed", "Closed", createable=False, updateable=False, sql=closed),
        _flag("IsWon", "Won", createable=False, updateable=False, sql="""({t}."StageName" = 'Closed Won')"""),
        _link("ContactId", "Contact ID", "Contact", updateable=False),
    )  # fmt: skip
    case = (
        _text("CaseNumber", "Case Number", 30, name_field=True, id_lookup=True, auto_number="{00000000}",
              nillable=False, createable=False, updateable=False, defaulted_on_create=True),
        _link("ContactId", "Contact ID", "Contact", **_HELD), _link("AccountId", "Account ID", "Account", **_HELD),
        _link("ParentId", "Parent Case ID", "Case"), _text("SuppliedName", "Name", 80),
        _text("SuppliedEmail", "Email Address", 80, type="email"),
        _text("SuppliedPhone", "Phone", 40), _text("SuppliedCompany", "Company", 80),
        _pick("Type", "Case Type", "Mechanical", "Electrical", "Electronic", "Structural", "Other"),
        _pick("Status", "Status", "New", "Working", "Escalated", "Closed", default="New",
              defaulted_on_create=True),
        _pick("Reason", "Case Reason", "Installation", "Equipment Complexity", "Performance", "Breakdown",
              "Equipment Design", "Feedback", "Other"),
        _pick("Origin", "Case Origin", "Phone", "Email", "Web"), _text("Subject", "Subject", 255),
        _pick("Priority", "Priority", "High", "Medium", "Low", default="Medium"),
        _area("Description", "Description"),
        _flag("IsClosed", "Closed", createable=False, updateable=False,
              sql="""coalesce({t}."Status" = 'Closed', 0)"""),
        _flag("IsEscalated", "Escalated"),
    )  # fmt: skip
    user = (
        _text("Username", "Username", 80, nillable=False, id_lookup=True), *_person(salutation=False),
        _text("CompanyName", "Company Name", 80), _text("Title", "Title", 80),
        _text("Email", "Email", 128, type="email", nillable=False), _text("Alias", "Alias", 8, nillable=False),
        _text("TimeZoneSidKey", "Time Zone", 40, type="picklist", nillable=False),
        _text("LocaleSidKey", "Locale", 40, type="picklist", nillable=False),
        _text("LanguageLocaleKey", "Language", 40, type="picklist", nillable=False),
        _text("EmailEncodingKey", "Email Encoding", 40, type="picklist", nillable=False),
        _pick("UserType", "User Type", "Standard", createable=False, updateable=False, length=40),
        _flag("IsActive", "Active"),
    )  # fmt: skip
    organization = (
        _text("Name", "Name", 80, name_field=True, nillable=False),
        _text("InstanceName", "Instance Name", 5), _flag("IsSandbox", "Is Sandbox"),
        _text("NamespacePrefix", "Namespace Prefix", 15),
        Field(name="TrialExpirationDate", label="Trial Expiration Date", type="datetime"),
        _pick("OrganizationType", "Edition", "Developer Edition", length=40),
        _text("LanguageLocaleKey", "Language", 40, type="picklist"),
        _text("TimeZoneSidKey", "Time Zone", 40, type="picklist"),
    )  # fmt: skip
    record_type = (
        _text("Name", "Name", 80, name_field=True, nillable=False, id_lookup=True),
        _text("DeveloperName", "Record Type Name", 80, nillable=False),
        _text("NamespacePrefix", "Namespace Prefix", 15), _text("Description", "Description", 255),
        _text("SobjectType", "SObject Type Name", 40, type="picklist", nillable=False), _flag("IsActive", "Active"),
    )  # fmt: skip
    fixed = {"createable": False, "deletable": False, "updateable": False, "owner": False}
    return (
        _object("Account", "Account", "Accounts", "001", account),
        _object("Contact", "Contact", "Contacts", "003", contact),
        _object("Lead", "Lead", "Leads", "00Q", lead),
        _object("Opportunity", "Opportunity", "Opportunities", "006", opportunity),
        _object("Case", "Case", "Cases", "500", case),
        _object("User", "User", "Users", "005", user, **fixed),
        _object("Organization", "Organization", "Organizations", "00D", organization, **fixed),
        _object("RecordType", "Record Type", "Record Types", "012", record_type, **fixed),
    )
