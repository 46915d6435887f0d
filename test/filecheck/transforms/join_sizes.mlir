// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --annotate-tir-op-pattern --dead-code-elimination --fuse-ops --join-sizes --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[?,?],f32>) -> !torch.vtensor<[?],f32> {
  %none = torch.constant.none
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %0 = torch.aten.size.int %arg0, %int0 : !torch.vtensor<[?,?],f32>, !torch.int -> !torch.int
  %1 = torch.aten.size.int %arg0, %int1 : !torch.vtensor<[?,?],f32>, !torch.int -> !torch.int
  %2 = torch.prim.ListConstruct %1 : (!torch.int) -> !torch.list<int>
  %3 = torch.aten.zeros %2, %none, %none, %none, %none : !torch.list<int>, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],f32>
  %4 = torch.aten.add.Scalar %3, %0, %int1 : !torch.vtensor<[?],f32>, !torch.int, !torch.int -> !torch.vtensor<[?],f32>
  return %4 : !torch.vtensor<[?],f32>
}
// CHECK: def fused_full_size_add{{.*}}R.Shape([size_0_1, size_0_0])
// CHECK: def main(
// CHECK: fused_full_size_add{{.*}}(R.shape([size_0_1, size_0_0]))
