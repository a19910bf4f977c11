"""Cross-layer equalization: channels between two layers get ranges of one size."""
