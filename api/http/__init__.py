"""HTTP for every route: errors, authentication, strictness, limits, paging, conditional requests."""
