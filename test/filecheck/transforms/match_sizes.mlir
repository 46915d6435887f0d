// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --annotate-tir-op-pattern --fuse-ops | filecheck %s --check-prefix=BEFORE
// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --annotate-tir-op-pattern --fuse-ops --match-sizes | filecheck %s

func.func @main(%arg0: !torch.vtensor<[?,3],f32>) -> !torch.vtensor<[?,5],f32> {
  %int1 = torch.constant.int 1
  %float0 = torch.constant.float 0.0
  %n = torch.symbolic_int "n" {min_val = 1, max_val = 9223372036854775807} : !torch.int
  torch.bind_symbolic_shape %arg0, [%n], affine_map<()[s0] -> ((s0 - 1) floordiv 2 + 1, 3)> : !torch.vtensor<[?,3],f32>
  %0 = torch.prim.ListConstruct %int1, %int1, %int1, %int1 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %1 = torch.aten.constant_pad_nd %arg0, %0, %float0 : !torch.vtensor<[?,3],f32>, !torch.list<int>, !torch.float -> !torch.vtensor<[?,5],f32>
  %4 = torch.aten.relu %1 : !torch.vtensor<[?,5],f32> -> !torch.vtensor<[?,5],f32>
  return %4 : !torch.vtensor<[?,5],f32>
}
// BEFORE: def aten_relu({{.*}}(n + T.int64(-1)) // T.int64(2) + T.int64(1) + T.int64(2)", T.int64(5)), "float32"), n
// BEFORE: def pad({{.*}}PadInput: T.Buffer(((n - T.int64(1)) // T.int64(2) + T.int64(3)
// CHECK: def aten_relu({{.*}}(n - T.int64(1)) // T.int64(2) + T.int64(3)", T.int64(5)), "float32"), n
