"""What every route shares: errors, authentication, strictness, limits of requests."""
