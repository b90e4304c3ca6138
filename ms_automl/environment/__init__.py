"""What surrounds the process: its output, its neighbours' names, versions and revision."""
