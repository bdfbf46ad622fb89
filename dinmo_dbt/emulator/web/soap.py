"""SOAP's `login()`, which orgs since Winter '26 have switched off; nothing else of SOAP is here.

The words of the switched-off login are those that users have met; those of a retired version, and of a version that has
no login() any more, are unverified. Source: End-of-Life policy (500 UNSUPPORTED_API_VERSION); Knowledge 005132110.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from dinmo_dbt.emulator.errors import not_emulated
from dinmo_dbt.emulator.web.call import FIRST_VERSION, LAST_VERSION, Call

_LAST_WITH_LOGIN = 64


def soap_login(call: Call, api: str, number: str) -> Response:
    if b"login>" not in call.request.get_data():
        raise not_emulated(f"SOAP calls: POST Soap/{api}/{number}")
    whole = number.partition(".")[0]
    version = int(whole) if whole.isdigit() else 0
    if not FIRST_VERSION <= version <= LAST_VERSION:
        return _fault("UNSUPPORTED_API_VERSION", f"API version {number} is not supported")
    if version > _LAST_WITH_LOGIN:
        return _fault("INVALID_OPERATION", "SOAP API login() is not available in this API version.")
    message = (
        "SOAP API login() is disabled by default in this org. Contact the org administrator to enable SOAP API login()."
    )
    return _fault("INVALID_OPERATION", message)


def _fault(code: str, message: str) -> Response:
    text = escape(message)
    return Response(
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
        'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:sf="urn:fault.partner.soap.sforce.com">'
        f"<soapenv:Body><soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {text}</faultstring>"
        f"<detail><sf:UnexpectedErrorFault><sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>{text}"
        "</sf:exceptionMessage></sf:UnexpectedErrorFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>",
        status=500, content_type="text/xml;charset=UTF-8",
    )  # fmt: skip
