"""SmoothQuant: outlier channels of what a linear layer reads, moved into its weights."""
