"""The state of a comparison: its trials and runs, what they cost, who is best, and what is kept of that."""
