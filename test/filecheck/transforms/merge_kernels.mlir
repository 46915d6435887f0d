// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --annotate-tir-op-pattern --dead-code-elimination --fuse-ops --fuse-tir --merge-kernels --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[1,1,4,4],f32>) -> !torch.vtensor<[1,1,4,4],f32> {
  %int3 = torch.constant.int 3
  %int1 = torch.constant.int 1
  %false = torch.constant.bool false
  %int2 = torch.constant.int 2
  %0 = torch.prim.ListConstruct %int3, %int3 : (!torch.int, !torch.int) -> !torch.list<int>
  %1 = torch.prim.ListConstruct %int1, %int1 : (!torch.int, !torch.int) -> !torch.list<int>
  %2 = torch.aten.max_pool2d %arg0, %0, %1, %1, %1, %false : !torch.vtensor<[1,1,4,4],f32>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.bool -> !torch.vtensor<[1,1,4,4],f32>
  %3 = torch.aten.mul.Scalar %2, %int2 : !torch.vtensor<[1,1,4,4],f32>, !torch.int -> !torch.vtensor<[1,1,4,4],f32>
  %4 = torch.aten.relu %3 : !torch.vtensor<[1,1,4,4],f32> -> !torch.vtensor<[1,1,4,4],f32>
  %5 = torch.aten.max_pool2d %4, %0, %1, %1, %1, %false : !torch.vtensor<[1,1,4,4],f32>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.bool -> !torch.vtensor<[1,1,4,4],f32>
  %6 = torch.aten.mul.Scalar %5, %int2 : !torch.vtensor<[1,1,4,4],f32>, !torch.int -> !torch.vtensor<[1,1,4,4],f32>
  %7 = torch.aten.relu %6 : !torch.vtensor<[1,1,4,4],f32> -> !torch.vtensor<[1,1,4,4],f32>
  return %7 : !torch.vtensor<[1,1,4,4],f32>
}
// CHECK-NOT: cls.fused_max_pool2d_
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.fused_max_pool2d1_multiply_aten_relu, (arg0,)
// CHECK: R.call_tir(cls.fused_max_pool2d1_multiply_aten_relu, (lv,)
