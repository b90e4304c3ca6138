"""Who is told what happens in a comparison: MLflow, the screen, the copy of the record."""
