"""Checks of a build folder that need no Vivado: constraints, scripts, netlist, lint. Each returns the faults it saw."""
