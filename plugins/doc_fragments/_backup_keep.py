# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The option that says how many backup sets to keep."""

from __future__ import annotations


class ModuleDocFragment:
    """Documents keep_options() of module_utils/_retention.py."""

    DOCUMENTATION = r"""
options:
  keep:
    description:
      - For O(action=prune), which sets stay. The rules mean what they mean in C(restic forget), in UTC; a set stays
        when one of them holds it, and one set can serve several. At least one rule is needed.
      - When a rule finds fewer periods than it may keep, it also holds the oldest set.
      - Only sets that can be used count. A damaged set and one that is dated after the clock of the host stay in any
        case and push no other set out.
    type: dict
    suboptions:
      last:
        description:
          - How many of the newest sets. V(0) is none and V(-1) all, here and below.
        type: int
        default: 0
      daily:
        description:
          - For how many days that have a set to keep the newest one.
        type: int
        default: 0
      weekly:
        description:
          - For how many ISO weeks (Monday to Sunday) that have a set to keep the newest one.
        type: int
        default: 0
      monthly:
        description:
          - For how many months that have a set to keep the newest one.
        type: int
        default: 0
      yearly:
        description:
          - For how many years that have a set to keep the newest one.
        type: int
        default: 0
      within:
        description:
          - All sets that are younger than this, counted back from the newest set that can be used, such as V(14d) or
            V(1y6m). The units are C(y), C(m) for months, C(w), C(d) and C(h).
        type: str
      minimum:
        description:
          - So many of the newest sets stay whatever the rules say and whatever the clock does. V(0) is refused.
        type: int
        default: 1
"""
