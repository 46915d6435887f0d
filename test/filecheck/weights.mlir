// RUN: torch-tvm-opt %s --canonicalize | filecheck %s
// RUN: torch-tvm-opt %s --mlir-elide-resource-strings-if-larger=4 | filecheck %s --check-prefix=ELIDED

func.func @main() -> !torch.vtensor<[2],f32> {
  %0 = torch.vtensor.literal(dense_resource<w> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  return %0 : !torch.vtensor<[2],f32>
}
// CHECK: dense_resource<w>
// CHECK: w: "0x04000000000080BF0000003F"
// ELIDED: dense_resource<w>
// ELIDED-NOT: 0x04000000

{-#
  dialect_resources: {
    builtin: {
      w: "0x04000000000080BF0000003F"
    }
  }
#-}
