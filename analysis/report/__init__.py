"""The report: tables as files, and one page that needs nothing else."""
