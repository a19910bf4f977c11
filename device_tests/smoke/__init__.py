"""Smoke: an artifact on a board against its golden pack."""
