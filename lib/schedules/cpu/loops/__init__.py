"""Everything that is loops over elements: what no other room has a kernel for."""
