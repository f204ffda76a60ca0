# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A new release beside the one that serves, at an address of its own: what fails here has stopped nothing.

The units of a trial are in /run, so that no reboot starts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.groundwork.backend.plugins.module_utils import _unit_files as files
from ansible_collections.groundwork.backend.plugins.module_utils import _units_host as host
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ports import listening_ports
from ansible_collections.groundwork.backend.plugins.module_utils._units import Unit
from ansible_collections.groundwork.backend.plugins.module_utils._units_failure import Failure
from ansible_collections.groundwork.backend.plugins.module_utils._units_plan import Release, checks

_STOP_SECONDS = 3600.0  # the units have a limit of their own
_MORE_SECONDS = 60  # that a trial may run beside those that it is waited for


@dataclass(frozen=True)
class Trial:
    """Units of a release to try, and the ports that they may have for that time."""

    release: Release
    units: Sequence[Unit]
    ports: range

    def run(self, timeout: float) -> None:
        """Start them, wait until they are well, stop them. Raises StateError; what serves was not touched."""
        place = self.release.place
        names = [unit.trial_name for unit in self.units]
        failure = Failure(
            self.release, f"Release {place.release} of {place.app} failed its trial, and what ran before still runs"
        )
        with self._installed(int(timeout) + _MORE_SECONDS) as addresses:
            host.act("start", names, timeout, failure.explain)
            asked = [
                check
                for unit in self.units
                for check in checks(unit, place.release, name=unit.trial_name, listen=addresses[unit.key])
            ]
            failure.wait(asked, names, timeout)

    @contextmanager
    def _installed(self, seconds: int) -> Iterator[dict[str, str]]:
        """The units of the trial are there; gives their addresses by the keys of the units."""
        place = self.release.place
        clean(place.app, check_mode=False)
        addresses = dict(zip((unit.key for unit in self.units), self._addresses(), strict=True))
        try:
            for unit in self.units:
                host.put(host.RUN / unit.trial_name, files.trial_service(unit, place, seconds))
                text = files.trial_socket(unit, place.app, addresses[unit.key])
                host.put(host.RUN / files.trial_socket_name(unit), text)
            host.systemctl("daemon-reload")
            yield addresses
        finally:
            clean(place.app, check_mode=False)

    def _addresses(self) -> Iterator[str]:
        """Of the same kind as the one that the program has later."""
        taken = listening_ports()
        for unit in self.units:
            if unit.listen.startswith("/"):
                yield f"/run/groundwork-{unit.stem}-trial.sock"
                continue
            port = next((port for port in self.ports if port not in taken), None)
            if port is None:
                raise StateError(
                    f"The trial of {unit.name} needs a port, and all of {self.ports[0]}-{self.ports[-1]} are taken.",
                    fix="Give a wider app_port_range.",
                )
            taken.add(port)
            yield f"{unit.listen.rpartition(':')[0]}:{port}"


def clean(app: str, *, check_mode: bool) -> list[str]:
    """Remove the trials of a stack, also those that a killed run left; their names."""
    left = host.owned(app, host.RUN)
    if not check_mode:
        host.take_away(left, host.RUN, timeout=_STOP_SECONDS)
    return sorted(left)
