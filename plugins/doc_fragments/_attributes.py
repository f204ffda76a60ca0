# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the attributes of modules mean; how far a module supports one is its own to say."""

from __future__ import annotations


class ModuleDocFragment:
    """The descriptions of the attributes that every module declares."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return the status prediction without changing the target.
  diff_mode:
    description: Returns what changed, or would change.
  idempotent:
    description: A second run in a row changes nothing.
"""
