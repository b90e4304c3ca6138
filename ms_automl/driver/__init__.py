"""The loop of a comparison: what is run next, until there is nothing more."""
