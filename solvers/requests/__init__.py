"""What is asked for: fields that several requests share, the machine and model, and the request for a plan."""
