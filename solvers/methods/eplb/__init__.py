"""DeepSeek's expert-parallel load balancer."""
