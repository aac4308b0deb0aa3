"""What TensorRT-LLM writes."""
