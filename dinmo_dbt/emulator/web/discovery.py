"""Who and what the org is: versions, OAuth, identity, resources, limits, record counts."""

from __future__ import annotations

from werkzeug.wrappers import Response

from dinmo_dbt.emulator.errors import not_emulated, not_found
from dinmo_dbt.emulator.web import identities
from dinmo_dbt.emulator.web.call import FIRST_VERSION, LAST_VERSION, Call

_SEASONS = ("Summer", "Winter", "Spring")


def versions(call: Call) -> Response:
    listed = [
        {"label": _label(v), "url": f"/services/data/v{v}.0", "version": f"{v}.0"}
        for v in range(FIRST_VERSION, LAST_VERSION + 1)
    ]
    return call.json(listed)


def token(call: Call) -> Response:
    reply = call.site.sessions.token(
        call.request.values.to_dict(), call.request.headers.get("Authorization"), call.own_url
    )
    response = call.json(reply)
    response.headers["Cache-Control"] = "no-cache, no-store"
    return response


def introspect(call: Call) -> Response:
    form = call.request.form.to_dict()
    return call.json(call.site.sessions.introspected(form, call.request.headers.get("Authorization"), call.own_url))


def userinfo(call: Call) -> Response:
    return _no_session(call) or call.json(identities.userinfo(call.site.sessions.identity, call.own_url))


def identity(call: Call, organization: str, user: str) -> Response:
    refused = _no_session(call)
    if refused is not None:
        return refused
    asked = call.request.args.get("format", "json"), call.request.headers.get("Accept", "")
    if asked[0] != "json" or asked[1].startswith(("application/xml", "text/xml")):
        raise not_emulated("identity URLs in another format than JSON")
    who = call.site.sessions.identity
    if organization[:15] != who.organization_id[:15] or user[:15] != who.user_id[:15]:
        raise not_found()
    version = call.request.args.get("version")
    number = f"{LAST_VERSION}.0" if version == "latest" else version
    return call.json(identities.identity_reply(call.site.sessions.identity, call.own_url, number))


def _no_session(call: Call) -> Response | None:
    """What the identity service says to a token that is none: 403 and one word, unlike the data API's 401.

    nforce and Salesforce's own VS Code extension look for this word. Its content type and the word for a request
    without a token are unverified.
    """
    token = call.request.args.get("oauth_token") or call.request.form.get("oauth_token")
    header = f"Bearer {token}" if token else call.request.headers.get("Authorization")
    if call.site.sessions.is_session(header):
        return None
    text = "Bad_OAuth_Token" if header else "Missing_OAuth_Token"
    return Response(text, status=403, content_type="text/html;charset=UTF-8")


def revoke(call: Call) -> Response:
    call.site.sessions.revoke(call.request.form.get("token") or call.request.args.get("token", ""))
    return Response(status=200)


def resources(call: Call) -> Response:
    base = call.base
    names = ("sobjects", "query", "queryAll", "limits", "composite", "jobs", "tooling")
    who = call.site.sessions.identity
    listed = {name: f"{base}/{name}" for name in names}
    listed["identity"] = f"{call.own_url}/id/{who.organization_id}/{who.user_id}"
    return call.json(listed)


def limits(call: Call) -> Response:
    return call.json(call.site.usage.reply())


def record_count(call: Call) -> Response:
    wanted = call.request.args.get("sObjects")
    names = wanted.split(",") if wanted else [o.name for o in call.site.store.schema.objects]
    counts = []
    for name in names:
        sobject = call.site.store.schema.get(name.strip())
        if sobject is not None:
            sql = f'SELECT count(*) FROM {call.site.store.table(sobject).name} WHERE "IsDeleted" = 0'
            count = call.site.store.reading().execute(sql).fetchone()[0]
            counts.append({"count": count, "name": sobject.name})
    return call.json({"sObjects": counts})


def _label(version: int) -> str:
    """Three releases a year: 31 is Summer '14, 65 is Winter '26."""
    season = _SEASONS[(version - 31) % 3]
    year = 14 + (version - 29) // 3
    return f"{season} '{year}"
