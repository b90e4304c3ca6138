"""What λ may be: one file per space, as plain data."""
