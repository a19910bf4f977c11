"""Probe: what one board is and has."""
