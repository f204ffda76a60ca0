# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Bring certificates to where servers read them: placeholder first, then the user's files or certbot's, then a reload.

What works is never given up for what might: a link is changed when there is something to change it to.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _certbot, _tls_nginx
from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._certbot_failure import Failure
from ansible_collections.groundwork.backend.plugins.module_utils._certbot_run import Certbot
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._tls_store import (
    FILES,
    PLACEHOLDERS,
    Record,
    Store,
    certificate,
)
from ansible_collections.groundwork.backend.plugins.module_utils._tls_wanted import Wanted, require_usable
from ansible_collections.groundwork.backend.plugins.module_utils._tls_x509 import (
    Certificate,
    read,
    self_signed,
)

_PLACEHOLDER_DAYS, _PLACEHOLDER_LEFT = 90.0, 7.0
_OWN_WARN_DAYS = 30.0


@dataclass
class Engine:
    """One call. done: by certificate what was done; problems: what could not be; warnings: what soon cannot be."""

    store: Store
    certbot: Certbot
    app: str
    fail_days: float
    check: bool
    records: dict[str, Record] = field(default_factory=dict)
    done: dict[str, list[str]] = field(default_factory=dict)
    problems: list[tuple[str, Failure]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reloaded: bool = False
    _before: dict[str, Path | None] = field(default_factory=dict)

    def bring(self, wanted: Sequence[Wanted], *, issue: bool, dry_run: bool) -> None:
        """Everything that a call does, in the order in which nothing that works stops working.

        Raises InputError for what the user gave; what an ACME server refuses is in *problems*.
        """
        self.records = self.store.records() if self.store.folder.is_dir() else {}
        for one in wanted:
            self._require_ours(one.name)
            if one.request is None:
                require_usable(one)
        self._enter(wanted)
        for one in wanted:
            if one.request is None:
                self._own(one)
            else:
                self._stand_in(one)
        # A server that is started meanwhile finds every file that its configuration names.
        self._load()
        for one in wanted if issue else ():
            if one.request is not None:
                self._acme(one, one.request, dry_run)
        self._load()
        for one in wanted:
            self._judge(one)
            if not self.check:
                self.store.sweep(one.name)

    def _did(self, name: str, what: str) -> None:
        self.done.setdefault(name, []).append(what)

    def _require_ours(self, name: str) -> None:
        record = self.records.get(name)
        if record and record.app != self.app:
            raise InputError(
                f"The certificate {name} belongs to the stack {record.app}, and {self.app} asks for it, too.",
                fix="Set shared: true for it in certbot_certificates, or give this one another name.",
            )

    def _enter(self, wanted: Sequence[Wanted]) -> None:
        new = {one.name: Record(self.app) for one in wanted if one.name not in self.records}
        if new and not self.check:
            self.store.prepare()
            self.records.update(new)
            self.store.save(self.records)

    def _note(self, name: str, **values: Any) -> None:
        record = replace(self.records[name], **values)
        if record != self.records[name]:
            self.records[name] = record
            self.store.save(self.records)

    def _own(self, one: Wanted) -> None:
        version = hashlib.sha256(f"{one.chain}{one.key}".encode()).hexdigest()[:16]
        if self.store.target(one.name) == self.store.folder / FILES / one.name / version and self.store.current(
            one.name
        ):
            return
        self._did(one.name, "installed")
        if not self.check:
            self._point(one.name, self.store.write_pair(FILES, one.name, version, one.chain, one.key))

    def _stand_in(self, one: Wanted) -> None:
        """Have the link lead to something until, or unless, there is what is wanted."""
        now, current = time.time(), self.store.current(one.name)
        live = certificate(self.store.live(one.name))
        if live and (live.ends > now or current is None or current.placeholder):
            if self.store.target(one.name) != self.store.live(one.name):
                self._did(one.name, "linked")
                if not self.check:
                    self._point(one.name, self.store.live(one.name))
            return
        if current and not current.placeholder:
            return
        if current is None or current.days_left(now) < _PLACEHOLDER_LEFT or set(current.names) != set(one.names):
            self._did(one.name, "placeholder")
            if not self.check:
                chain, key = self_signed(one.names, _PLACEHOLDER_DAYS)
                serial = read(chain, one.name).serial
                self._point(one.name, self.store.write_pair(PLACEHOLDERS, one.name, serial, chain, key))

    def _point(self, name: str, target: Path) -> None:
        self._before.setdefault(name, self.store.target(name))
        self.store.mark()
        self.store.point(name, target)

    def _load(self) -> None:
        """Test and reload nginx when something changed; back to what was there when it refuses that."""
        if self.check or not self.store.folder.is_dir() or not self.store.pending:
            return
        tested = _tls_nginx.test()
        if tested.refusal:
            changed = {name: (target, self.store.target(name)) for name, target in self._before.items() if target}
            for name, (old, _) in changed.items():
                self.store.point(name, old)
            if changed and not _tls_nginx.test().refusal:
                self.store.unmark()
                raise StateError(
                    f"nginx refuses the new certificate of {', '.join(sorted(changed))}: {tested.refusal}.",
                    fix="The one from before is back, and is served. Correct the certificate, then run again.",
                )
            for name, (_, new) in changed.items():
                if new:
                    self.store.point(name, new)
            raise StateError(
                f"nginx refuses its configuration and cannot be reloaded for new certificates: {tested.refusal}.",
                fix="It serves as before. Correct the configuration (`nginx -t` shows the place), then run again.",
            )
        self.reloaded = _tls_nginx.load(tested) or self.reloaded
        self.store.unmark()
        self._before.clear()

    def _acme(self, one: Wanted, request: _certbot.Request, dry_run: bool) -> None:
        renewal, live = self.store.renewal_text(one.name), certificate(self.store.live(one.name))
        record = self.records.get(one.name, Record(self.app))
        request = self.certbot.able(request, self.warnings)
        why = _certbot.reasons(request, _certbot.settings(renewal), live, record.profile)
        due = live is not None and live.days_left(time.time()) < live.renewed_days()
        if why or due:
            verb = "renewed" if live and not why else "issued"
            if self.check:
                self._did(one.name, verb)
                return
            failure = self.certbot.renew(request) if verb == "renewed" else self.certbot.issue(request)
            new = certificate(self.store.live(one.name))
            if failure is None and (new is None or new.lacking(one.names)):
                failure = Failure(
                    "refused",
                    f"certbot says that it has {one.name}, and what it has does not fit.",
                    "Look at `certbot certificates`.",
                )
            if failure:
                self._failed(one.name, live, why, failure)
            elif new and (live is None or new.serial != live.serial):
                self._did(one.name, verb)
                self._note(one.name, profile=request.profile, issued=record.issued or not renewal)
                self._point(one.name, self.store.live(one.name))
                if dry_run and (failed := self.certbot.try_renewal(request)):
                    self.warnings.append(
                        f"{one.name} was {verb}, and the trial of a renewal failed. {failed.problem} {failed.fix}"
                    )
        self._renew_in_time(one.name)

    def _failed(self, name: str, live: Certificate | None, why: list[str], failure: Failure) -> None:
        left = live.days_left(time.time()) if live else 0.0
        if why or live is None or left < live.late_days(self.fail_days):
            asked = (
                f"No new certificate for {name} ({'; '.join(why)})"
                if why
                else f"{name} ends in {left:.1f} days and was not renewed"
            )
            self.problems.append((name, replace(failure, problem=f"{asked}. {failure.problem}")))
        else:
            self.warnings.append(
                f"The certificate {name} could not be renewed and ends in {left:.1f} days. "
                f"{failure.problem} {failure.fix}"
            )

    def _renew_in_time(self, name: str) -> None:
        """Have certbot renew in time by itself: an old one suits certificates of 90 days only."""
        text, live = self.store.renewal_text(name), certificate(self.store.live(name))
        if not text or live is None:
            return
        if (new := _certbot.timed(text, live, self.certbot.version)) != text:
            self._did(name, "renewal")
            if not self.check:
                write_file(self.store.renewal(name), new.encode())

    def _judge(self, one: Wanted) -> None:
        """The days that are left, of what is there in the end."""
        current = self.store.current(one.name)
        if current is None or current.placeholder or one.name in dict(self.problems):
            return
        left = current.days_left(time.time())
        if left < current.late_days(self.fail_days):
            fix = "Look at `systemctl status certbot.timer` and `journalctl -u certbot`."
            if one.request is None:
                fix = "Bring a newer one."
            self.problems.append(
                (one.name, Failure("late", f"The certificate {one.name} ends in {left:.1f} days.", fix))
            )
        elif one.request is None and left < min(_OWN_WARN_DAYS, current.renewed_days()):
            self.warnings.append(f"The certificate {one.name}, which you brought, ends in {left:.1f} days.")
