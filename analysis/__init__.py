"""Turns the records of a comparison into numbers, figures and a report."""
