"""What several placement formats have in common."""
