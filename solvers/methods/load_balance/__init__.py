"""Load alone, balanced."""
