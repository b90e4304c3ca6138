"""What follows from the records: pure functions from frames to numbers, and the sentences they allow."""
