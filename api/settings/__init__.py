"""What an operator sets: environment variables, and the addresses that they hold."""
