"""From bytes to arrays: archives, JSON, Parquet, pickles, tensors, all without trusting the file."""
