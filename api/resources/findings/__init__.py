"""The findings on a trace: what is wrong with the recording."""
