# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores claims and tells which ones say the same thing."""
