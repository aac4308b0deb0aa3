"""The resource `fronts`."""
