"""Programs on OpenCL devices, through ``pyopencl``: which devices there are, their memory, and calls."""
