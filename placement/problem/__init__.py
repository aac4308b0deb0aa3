"""What is asked: objective, constraints, and the problem that joins them with profile and machine."""
