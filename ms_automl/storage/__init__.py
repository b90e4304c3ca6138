"""Files, tensors and object stores: whole or not there, and nothing unpickled."""
