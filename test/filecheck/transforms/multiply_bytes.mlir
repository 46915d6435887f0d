// RUN: torch-tvm-opt %s --torch-to-relax --multiply-bytes --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[3,4],si8>) -> !torch.vtensor<[3,2],si32> {
  %0 = torch.vtensor.literal(dense_resource<w> : tensor<4x2xsi8>) : !torch.vtensor<[4,2],si8>
  %1 = torch.aten.mm %arg0, %0 : !torch.vtensor<[3,4],si8>, !torch.vtensor<[4,2],si8> -> !torch.vtensor<[3,2],si32>
  return %1 : !torch.vtensor<[3,2],si32>
}
// CHECK-NOT: R.matmul
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.pack_int8_weight, (w0,)
// CHECK: R.call_tir(cls.int8_matmul, (arg0, lv)

{-#
  dialect_resources: {
    builtin: {
      w: "0x100000000001020304050607"
    }
  }
#-}
