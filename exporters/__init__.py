"""Lower, then emit: one exporter for each format; none imports another."""
