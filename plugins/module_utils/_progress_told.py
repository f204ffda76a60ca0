# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Readings of a long task as lines for a person: what, how much, how fast, how much longer."""

from __future__ import annotations

from ansible_collections.groundwork.backend.plugins.module_utils._progress import Reading

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 3.0, 30.0


class Teller:
    """Remembers earlier readings, for the rate and for what is left."""

    def __init__(self) -> None:
        self._begin: Reading | None = None
        self._last: Reading | None = None

    def line(self, reading: Reading) -> str | None:
        """The line for a reading, or None when nothing happened since the last one.

        The rate is that since the last line; the end is estimated from the rate since the step was first seen.
        """
        last, self._last = self._last, reading
        if reading == last:
            return None
        begin = self._begin
        if last is None or begin is None or reading.step != last.step:
            self._begin = begin = last = reading
        parts = [f"{reading.step} {_plain(reading.item)}".rstrip(), _amount(reading)]
        if (rate := _rate(last, reading)) > 0:
            parts.append(f"{size(rate)}/s")
        left = (reading.bytes_total or 0) - reading.bytes_done
        if left > 0 and (steady := _rate(begin, reading)) > 0:
            parts.append(f"about {duration(left / steady)} left")
        return ", ".join(parts)


def pause(elapsed: float) -> float:
    """Seconds until the next look: a tenth of the time so far, so that long tasks neither flood nor go silent."""
    return min(max(elapsed / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE)


def size(amount: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1, such as "1.5 GiB"."""
    unit = 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{amount:.0f} B"


def duration(seconds: float) -> str:
    """Seconds as "45 s", "3 min" or "2 h 5 min"."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _amount(reading: Reading) -> str:
    if not reading.bytes_total:
        return size(reading.bytes_done)
    # A total is often an estimate, and an estimate that is passed must not read as more than all.
    percent = min(99, 100 * reading.bytes_done // reading.bytes_total)
    if reading.bytes_done == reading.bytes_total:
        percent = 100
    return f"{size(reading.bytes_done)} of {size(reading.bytes_total)} ({percent} %)"


def _rate(before: Reading, now: Reading) -> float:
    seconds = now.seconds - before.seconds
    return (now.bytes_done - before.bytes_done) / seconds if seconds > 0 else 0.0


def _plain(text: str) -> str:
    """A table may be called anything; what a terminal would obey is not passed on."""
    return "".join(character if character.isprintable() else "?" for character in text)
