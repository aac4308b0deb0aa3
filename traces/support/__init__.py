"""What the rest of the package stands on: errors, whole files, threads, temporary folders."""
