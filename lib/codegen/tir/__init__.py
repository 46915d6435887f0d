"""TIR passes between scheduled kernels and LLVM."""
