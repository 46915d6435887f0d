// RUN: torch-tvm-opt %s --torch-to-relax --pack-matmul-weights --lift-params --prepack-weights --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4,3],f32>) -> !torch.vtensor<[4,2],f32> {
  %0 = torch.vtensor.literal(dense_resource<weight> : tensor<2x3xf32>) : !torch.vtensor<[2,3],f32>
  %1 = torch.vtensor.literal(dense_resource<bias> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %2 = torch.aten.linear %arg0, %0, %1 : !torch.vtensor<[4,3],f32>, !torch.vtensor<[2,3],f32>, !torch.vtensor<[2],f32> -> !torch.vtensor<[4,2],f32>
  return %2 : !torch.vtensor<[4,2],f32>
}
// CHECK-NOT: def main_transform_params
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.matmul, (arg0, lv)
// CHECK: R.add(lv1, w1)

{-#
  dialect_resources: {
    builtin: {
      weight: "0x100000003A6AF23CEEBC8D3E93A1923EE61407BF7C95D3BD0EADDBBE",
      bias: "0x1000000065427CBE0302553E"
    }
  }
#-}
