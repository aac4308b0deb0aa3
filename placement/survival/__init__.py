"""What is left when GPUs, hosts, nodes or links fail: what slots allow at best, and what a plan keeps."""
