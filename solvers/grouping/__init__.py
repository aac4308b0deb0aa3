"""Groups of requests to workers, and experts to GPUs, in one problem."""
