"""Lab: emulated boards."""
