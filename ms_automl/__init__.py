"""ms_automl: learn the sparsity strength λ of a multi-task network, or search for it, under one budget."""

__version__ = "0.1.0"
