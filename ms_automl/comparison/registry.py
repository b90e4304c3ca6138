"""What lies beside this package and is run by it: the ways of training and the spaces of λ."""

from ms_automl.environment.siblings import ours

with ours():
    from search_spaces import SPACES, Parameter, Space
    from trainables import METHODS, Method, arguments_of

__all__ = ["METHODS", "SPACES", "Method", "Parameter", "Space", "arguments_of"]
