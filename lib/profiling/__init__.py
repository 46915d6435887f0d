"""How long kernels take, how fast the machine is, and which schedule is the fastest."""
