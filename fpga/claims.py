"""Sentences about timing, fit or power, and whether a Vivado report stands behind them."""

from __future__ import annotations

import re
from typing import Any

# What only a report can know. Words that say the opposite, or whose number it is, make a sentence harmless.
_CLAIM = re.compile(
    r"closes? timing|timing (?:is |was )?(?:met|closed)|meets? (?:its |the )?(?:clock|timing)|\bWNS\b|\bf_?max\b"
    r"|worst (?:negative )?slack|runs? (?:on the card |in hardware )?at \d+ ?MHz|achieves? \d+ ?MHz|placed and routed"
    r"|\bfits (?:on|in|into) (?:an? |the |one )?(?:card|board|device|chip|FPGA|SLR|region|vcu1525|u200)"
    r"|\d ?W(?:atts?)?(?![\w/])|\bwatts?\b|(?:draws|consumes|dissipates) \d",
    re.I,
)
_HARMLESS = re.compile(
    r"\b(?:estimate[ds]?|model(?:led|s)?|simulat(?:e|ed|ion)|not|no|never|nothing|without|unless|only|if|whether|would"
    r"|may|must|until|assum(?:e|ed|ption)s?|published|refuse[ds]?|budget|ask)\b",
    re.I,
)
_LINK = re.compile(r"reports/fpga/[\w.-]+\.json")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def unbacked_claims(text: str, reports: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences that claim what no report says.

    A claim must name a stored report (``reports/fpga/NAME.json``), which must be of a routed design, and each of its
    numbers must be in that file.

    Parameters
    ----------
    text : str
        Markdown.
    reports : dict
        Stored reports (:func:`nmsat.fpga.vivado_reports.load_json`) by the path that a text names.
    """
    found = []
    for sentence in _sentences(text):
        if not _CLAIM.search(sentence) or _HARMLESS.search(sentence):
            continue
        link = _LINK.search(sentence)
        report = reports.get(link[0]) if link else None
        if report is None or not report["routed"]:
            found.append(sentence)
            continue
        known = set(_numbers(report))
        rest = sentence.replace(link[0] if link else "", "")
        if any(float(number.replace(",", "")) not in known for number in _NUMBER.findall(rest)):
            found.append(sentence)
    return found


def _sentences(text: str) -> list[str]:
    """Sentences of prose, and lines of tables, without code blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", prose):
        lines = block.splitlines()
        if any(line.startswith("|") for line in lines):
            parts += lines
        else:
            parts += re.split(r"(?<=[.:;!?])\s+(?=[A-Z`*\[])", " ".join(line.strip() for line in lines))
    return [part.strip() for part in parts if part.strip()]


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for inside in value.values() for number in _numbers(inside)]
    if isinstance(value, list):
        return [number for inside in value for number in _numbers(inside)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []
