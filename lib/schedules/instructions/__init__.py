"""Vector instructions that LLVM does not choose by itself: a file for each instruction set.

Each is one object that says what it computes, which processors have it, and how it is spelled for those and for any.
``CpuModel`` finds the one that fits a processor.
"""
