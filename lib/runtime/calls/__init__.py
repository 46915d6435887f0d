"""A call: what it is given, checked and turned into what kernels take, and what it returns."""
