"""Bench: latencies on a board, and whether they may be believed."""
