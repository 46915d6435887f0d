// RUN: torch-tvm-opt %s --cse | filecheck %s
// RUN: torch-tvm-opt %s --pass-pipeline='builtin.module(func.func(cse))' | filecheck %s

func.func @main(%arg0: !torch.int) -> !torch.int {
  %int1 = torch.constant.int 1
  %int1_0 = torch.constant.int 1
  %0 = torch.aten.add.int %int1, %int1_0 : !torch.int, !torch.int -> !torch.int
  return %0 : !torch.int
}
// CHECK-LABEL: func.func @main
// CHECK:         %[[ONE:.*]] = torch.constant.int 1
// CHECK-NOT:     torch.constant.int
// CHECK:         torch.aten.add.int %[[ONE]], %[[ONE]]
