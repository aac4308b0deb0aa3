"""The resources of the REST interface, a folder each."""
