"""What vLLM records: routed experts, and the load statistics of its EPLB."""
