# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One measured figure, and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """ours and peer_value are medians in *unit*; target is the highest allowed ratio, or None where none was set.

    more_is_better: target is the lowest allowed ratio.
    """

    figure: str
    unit: str
    ours: float
    peer: str | None = None
    peer_value: float | None = None
    target: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """ours / peer_value."""
        return round(self.ours / self.peer_value, 3) if self.peer_value else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one, and when the peer was not measured."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target if self.more_is_better else self.ratio <= self.target

    @property
    def verdict(self) -> str | None:
        """met, for the table."""
        if self.met is not None:
            return str(self.met)
        return None if self.target is None else "not measured"

    def to_dict(self) -> dict[str, Any]:
        """As it is written to the file."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text."""
    head = ("figure", "unit", "ours", "peer", "peer value", "ratio", "target", "met")
    rows = [head] + [
        tuple("-" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in cells)
        for cells in (
            (item.figure, item.unit, item.ours, item.peer, item.peer_value, item.ratio, item.target, item.verdict)
            for item in figures
        )
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
