"""Equalize: rewrites of a float model that keep its function and make integers hold."""
