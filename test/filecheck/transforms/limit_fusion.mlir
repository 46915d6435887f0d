// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --annotate-tir-op-pattern --dead-code-elimination --fuse-ops --limit-fusion --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32> {
  %int1 = torch.constant.int 1
  %0 = torch.aten.sin %arg0 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %1 = torch.aten.add.Scalar %0, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %2 = torch.aten.sin %1 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %3 = torch.aten.add.Scalar %2, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %4 = torch.aten.sin %3 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %5 = torch.aten.add.Scalar %4, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %6 = torch.aten.sin %5 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %7 = torch.aten.add.Scalar %6, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %8 = torch.aten.sin %7 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %9 = torch.aten.add.Scalar %8, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %10 = torch.aten.sin %9 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %11 = torch.aten.add.Scalar %10, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %12 = torch.aten.sin %11 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %13 = torch.aten.add.Scalar %12, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %14 = torch.aten.sin %13 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %15 = torch.aten.add.Scalar %14, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %16 = torch.aten.sin %15 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %17 = torch.aten.add.Scalar %16, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %18 = torch.aten.sin %17 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %19 = torch.aten.add.Scalar %18, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %20 = torch.aten.sin %19 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %21 = torch.aten.add.Scalar %20, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  %22 = torch.aten.sin %21 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  %23 = torch.aten.add.Scalar %22, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
  return %23 : !torch.vtensor<[4],f32>
}
// CHECK-LABEL: def fused_tir_sin_add_tir_sin_add(
// CHECK-LABEL: def fused_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add(
// CHECK: cls.fused_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add_tir_sin_add(arg0)
// CHECK: cls.fused_tir_sin_add_tir_sin_add(lv)
