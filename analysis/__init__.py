"""From MLflow records to tables, plots and a report."""
