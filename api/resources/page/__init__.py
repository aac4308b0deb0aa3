"""The resource `page`."""
