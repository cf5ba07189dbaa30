"""Time, memory and operations of models, ours beside others: what `make benchmark-speed` runs."""
