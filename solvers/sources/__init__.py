"""What plans are made from: traces and counts, and their parts."""
