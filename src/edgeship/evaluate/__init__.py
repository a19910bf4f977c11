"""Artifact against float model on the same data; the golden pack."""
