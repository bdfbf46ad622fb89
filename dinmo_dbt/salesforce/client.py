"""The one door to Salesforce over HTTP: timeouts, retries, session refresh, limits and the hosts that may be called.

Every request of the package goes through `Client.call`. A reply is one of three: whole, a definite refusal
(`SalesforceRefusal`, nothing was applied), or none that can be trusted; what the last means depends on the call's
`CallEffect`. Nothing is logged here; no message carries a token, a body, or, for requests that hold row values, any of
Salesforce's own words.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from dinmo_dbt import wire
from dinmo_dbt.codes import NO_ANSWER, REPLY_LOST, SESSION_REFUSED, WRONG_ORG
from dinmo_dbt.errors import AuthError, DestinationError, DinmoError, NotApplied, OutcomeUnknown, WrongOrg
from dinmo_dbt.org import Secret
from dinmo_dbt.salesforce.asking import ask
from dinmo_dbt.salesforce.attempt import Line
from dinmo_dbt.salesforce.errors import ReplyTooLarge, hint
from dinmo_dbt.salesforce.pauses import ATTEMPTS_MAX, Pauses
from dinmo_dbt.salesforce.reading import reader
from dinmo_dbt.salesforce.replies import NotSent, SessionExpired
from dinmo_dbt.salesforce.request import Reply, Request, name_of, url_of

if TYPE_CHECKING:
    from simple_salesforce import Salesforce

Failed = TypeVar("Failed", bound=DinmoError)


@dataclass(frozen=True, slots=True)
class Login:
    """What a login gave: where to call, the session's token, and the org's id (18 characters)."""

    instance_url: str
    token: Secret
    organization_id: str
    username: str = ""


class Client:
    """A logged-in HTTP client of one org. Safe to use from several threads.

    `log_in(client)` gives a `Login`; it is called at once and again, under a lock, when the session expires. `say` is
    called with a line for people while a login waits for an answer.
    """

    def __init__(
        self,
        log_in: Callable[[Client], Login],
        *,
        sleep: Callable[[float], None],
        rng: random.Random,
        api_share: Decimal = Decimal(80),
        trust_env: bool = False,
        ca_file: str | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log_in = log_in
        self._pauses = Pauses(sleep, rng)
        self._say = say
        self._api_share = api_share
        self.line = Line(trust_env=trust_env, ca_file=ca_file)
        self.meter = self.line.meter
        self._renewal = threading.Lock()
        self._simple: Salesforce | None = None
        self._foreign: WrongOrg | None = None
        self.login = log_in(self)

    def close(self) -> None:
        self.line.session.close()

    def rest(self, seconds: float) -> None:
        """Sleep; ends early, with an exception, when the user asks to stop."""
        self._pauses.sleep(seconds)

    # The calls of the package

    def get(self, path: str, params: Mapping[str, str] | None = None, **options: Any) -> Any:
        """The JSON of a read."""
        return self.call(Request("GET", path, params=params, **options)).json

    def call(self, request: Request) -> Reply:
        """Send until a whole reply comes or the bound is met.

        Raises SalesforceRefusal, AuthError, LimitReached, ReadOnly, NotApplied, or OutcomeUnknown (see `CallEffect`).
        Once another org has answered a renewal, nothing more is sent: who ignored that error gets it again.
        """
        if self._foreign is not None:
            raise without_frames(self._foreign)
        doubt = ""
        renewed = False
        error: DestinationError
        for attempt in range(ATTEMPTS_MAX):
            login = self.login
            if request.before is not None:
                request.before()
            try:
                url = url_of(login.instance_url, request)
                self.meter.enforce(self._api_share)
                return self.line.attempt(request, url, {"Authorization": f"Bearer {login.token.reveal()}"})
            except SessionExpired:
                if renewed:
                    message = "Salesforce refused a session that was just renewed"
                    error = AuthError(SESSION_REFUSED, message, hint=hint("INVALID_SESSION_ID"))
                    break
                renewed = True
                try:
                    self._renew(login)
                except DestinationError as refused:
                    error = refused
                    break
            except NotSent as pause:
                error = pause.final(NO_ANSWER, f"{name_of(request)}: {pause}, {attempt + 1} times")
                self._pauses.after(attempt, pause.after_s)
            except wire.Broken as lost:
                doubt = str(lost)
                kind = ReplyTooLarge if isinstance(lost, wire.ReplyTooLong) else NotApplied
                error = kind(NO_ANSWER, f"{name_of(request)}: {lost}, at attempt {attempt + 1}")
                if not request.effect.repeats or not lost.again:
                    break
                self._pauses.after(attempt)
            except DestinationError as refused:
                error = refused
                break
        if doubt and request.effect.acts:
            raise OutcomeUnknown(
                REPLY_LOST, f"{name_of(request)}: no whole reply came ({doubt}); it may have been applied"
            ) from without_frames(error)
        raise without_frames(error)

    def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        """A login call: status and JSON (None if the body isn't). Repeating it gives another token, no harm.

        Sent without a session's token; the URL must have passed `checked_url`.
        """
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", url, {**kind, **headers}, urlencode(form).encode())

    def get_as(self, login: Login, path: str) -> tuple[int, Any]:
        """A read during login, under the token just given: status and JSON (None if the body isn't)."""
        url = url_of(login.instance_url, Request("GET", path))
        try:
            return self._ask("GET", url, {"Authorization": f"Bearer {login.token.reveal()}"}, None)
        except DestinationError as error:
            raise without_frames(error) from None

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, Any]:
        return ask(self.line, method, url, headers, body, pause=self._pauses.after, say=self._say)

    @property
    def simple(self) -> Salesforce:
        """A simple-salesforce object whose every request passes `call`; for reads only."""
        if self._simple is None:
            self._simple = reader(self.login.instance_url, self.call)
        return self._simple

    def _renew(self, expired: Login) -> None:
        """Log in again unless another thread just did; the org must stay the same."""
        with self._renewal:
            if self.login is not expired:
                return
            try:
                login = self._log_in(self)
                if login.organization_id != expired.organization_id:
                    message = f"the renewed session is of another org: {login.organization_id}"
                    raise WrongOrg(WRONG_ORG, message, hint="nothing was sent")
            except WrongOrg as refused:
                self._foreign = refused
                raise
            self.login = login
            self._simple = None


def without_frames(error: Failed) -> Failed:
    """The error without the frames it came through: their variables hold secrets, which crash reporters would send."""
    error.__suppress_context__ = True
    return error.with_traceback(None)
