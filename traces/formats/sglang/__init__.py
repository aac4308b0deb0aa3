"""What SGLang records: dumps of its expert distribution recorder, and responses with routed experts."""
