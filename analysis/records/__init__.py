"""What a comparison left behind, read from MLflow and `comparison.json` into tidy frames."""
