"""Floating point units: fixed latency, one result a cycle, bit-equal to ``nmsat.models.golden``."""
