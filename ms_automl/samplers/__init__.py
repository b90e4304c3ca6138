"""What to try next: from a seed, a space and the trials so far to the next suggestion."""
