"""Floorplans that ship with the package, one YAML each."""
