// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops | filecheck %s --check-prefix=BEFORE
// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --simplify-sizes | filecheck %s

func.func @main(%arg0: !torch.vtensor<[?,3],f32>) -> !torch.vtensor<[?,5],f32> {
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %none = torch.constant.none
  %float0 = torch.constant.float 0.0
  %n = torch.symbolic_int "n" {min_val = 1, max_val = 9223372036854775807} : !torch.int
  torch.bind_symbolic_shape %arg0, [%n], affine_map<()[s0] -> ((s0 - 1) floordiv 2 + 1, 3)> : !torch.vtensor<[?,3],f32>
  %0 = torch.prim.ListConstruct %int1, %int1, %int1, %int1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %1 = torch.aten.constant_pad_nd %arg0, %0, %float0 : !torch.vtensor<[?,3],f32>, !torch.list<int>, !torch.float -> !torch.vtensor<[?,5],f32>
  %2 = torch.aten.cumsum %1, %int0, %none : !torch.vtensor<[?,5],f32>, !torch.int, !torch.none -> !torch.vtensor<[?,5],f32>
  return %2 : !torch.vtensor<[?,5],f32>
}
// BEFORE: def {{.*}}cumsum({{.*}}(n + T.int64(-1)) // T.int64(2) + T.int64(1) + T.int64(2)
// BEFORE: def pad({{.*}}PadInput: T.Buffer(((n - T.int64(1)) // T.int64(2) + T.int64(3)
// CHECK: def {{.*}}cumsum({{.*}}(n - T.int64(1)) // T.int64(2) + T.int64(3)
// CHECK: def pad({{.*}}PadInput: T.Buffer(((n - T.int64(1)) // T.int64(2) + T.int64(3)
