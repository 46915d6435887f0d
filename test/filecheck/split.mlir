// RUN: torch-tvm-opt %s --split-input-file --canonicalize | filecheck %s

func.func @first() -> !torch.int {
  %0 = torch.constant.int 1
  return %0 : !torch.int
}
// -----
func.func @second() -> !torch.int {
  %0 = torch.constant.int 2
  return %0 : !torch.int
}
// CHECK: @first
// CHECK: // -----
// CHECK: @second
