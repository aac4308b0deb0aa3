"""What plans do to tokens and counts, part by part."""
