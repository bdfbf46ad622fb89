"""Who the org's one user is, as the OpenID userinfo endpoint and the identity URL say it. Pure."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.emulator.identity import Identity


def userinfo(who: Identity, url: str) -> dict[str, Any]:
    """The OpenID userinfo reply."""
    rest = f"{url}/services/data/v{{version}}"
    photos = {"picture": f"{url}/profilephoto/005/F", "thumbnail": f"{url}/profilephoto/005/T"}
    return {
        "sub": f"{url}/id/{who.organization_id}/{who.user_id}", "user_id": who.user_id,
        "organization_id": who.organization_id, "preferred_username": who.username, "nickname": "admin",
        "name": "Emulator Admin", "email": who.username, "email_verified": True, "given_name": "Emulator",
        "family_name": "Admin", "zoneinfo": "Etc/UTC", "photos": photos, "profile": f"{url}/{who.user_id}",
        "picture": photos["picture"], "address": {"country": "US"}, "is_salesforce_integration_user": False,
        "urls": {
            "enterprise": f"{url}/services/Soap/c/{{version}}/{who.organization_id}",
            "rest": f"{rest}/", "sobjects": f"{rest}/sobjects/", "query": f"{rest}/query/",
            "custom_domain": url,
        },
        "active": True, "user_type": "STANDARD", "language": "en_US", "locale": "en_US", "utcOffset": 0,
        "updated_at": "2026-01-01T00:00:00Z", "is_app_installed": True,
    }  # fmt: skip


def identity_reply(who: Identity, url: str, version: str | None) -> dict[str, Any]:
    """The identity URL's reply; without a version its links keep a literal `{version}`."""
    info = userinfo(who, url)
    urls = info["urls"]
    if version:
        urls = {k: v.replace("{version}", version) for k, v in urls.items()}
    return {
        "id": info["sub"], "asserted_user": True, "user_id": info["user_id"],
        "organization_id": info["organization_id"], "username": info["preferred_username"],
        "nick_name": info["nickname"], "display_name": info["name"], "email": info["email"],
        "email_verified": True, "first_name": "Emulator", "last_name": "Admin", "timezone": "Etc/UTC",
        "photos": info["photos"], "active": True, "user_type": "STANDARD", "language": "en_US",
        "locale": "en_US", "utcOffset": 0, "urls": urls, "is_app_installed": True,
    }  # fmt: skip
