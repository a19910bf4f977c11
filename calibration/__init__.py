"""Representative data -> Statistics -> Ranges."""
