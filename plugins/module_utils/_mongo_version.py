# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which version of MongoDB takes the data of which; pure.

Data carries a feature compatibility version (8.0). A server starts with data of its own series and of the major release
before it, and refuses all other: https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/
"""

from __future__ import annotations

import re

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

Series = tuple[int, int]
# Before 5.0 a major release did not end in .0.
_BEFORE = {(5, 0): (4, 4), (4, 4): (4, 2), (4, 2): (4, 0), (4, 0): (3, 6)}


def series(version: str, what: str = "version") -> Series:
    """(8, 0) for "8.0" and "8.0.12". Raises InputError."""
    found = re.match(r"(\d+)\.(\d+)(?:[.-]|\Z)", version)
    if found is None:
        raise InputError(f"The {what} {version!r} is none of MongoDB.", fix="Write it like 8.0.")
    return int(found[1]), int(found[2])


def major_before(one: Series) -> Series:
    """The major release whose data *one* takes: 8.0 for 8.2, 7.0 for 8.0."""
    return _BEFORE.get(one) or ((one[0], 0) if one[1] else (one[0] - 1, 0))


def upgrade_fault(image: str, compatibility: str, ran: str = "") -> str:
    """Why a server of the version *image* must not be started with some data, as sentences; empty when it may.

    compatibility: the feature compatibility version of the data; ran: the version that had it last, which it is of at
    the most. Either is empty when nobody knows it. Raises InputError.
    """
    wanted = series(image, "version of the image")
    if not compatibility and not ran:
        return ""
    data = series(compatibility or ran, "feature compatibility version")
    last = max(data, series(ran or compatibility))
    if wanted < last:
        return (
            f"The image has MongoDB {image}, and the data was used by {_text(last)}: MongoDB does not go back. "
            f"Name an image of {_text(last)}, or restore a backup into a new volume."
        )
    if data >= major_before(wanted):
        return ""
    told = f"The image has MongoDB {image}, which takes data of {_text(major_before(wanted))}, and found {_text(data)}."
    if last > data:
        return (
            f"{told} The server is {ran} already, but its data is still as {_text(data)} had it: name its image again, "
            f"set mongodb_feature_compatibility_version to {_text(last)}, run, and then name the new image."
        )
    step = _text(_step_after(data, wanted))
    return f"{told} Name an image of {step} first, with mongodb_feature_compatibility_version {step}."


def _step_after(data: Series, wanted: Series) -> Series:
    """The furthest release on the way to *wanted* that takes *data*."""
    step = wanted
    while data < major_before(step):
        step = major_before(step)
    return step


def _text(one: Series) -> str:
    return f"{one[0]}.{one[1]}"
