"""The unseen-task stage, on a finished comparison: ``python -m ms_automl.transfer``."""
