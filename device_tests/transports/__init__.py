"""Transports: how to reach a board."""
