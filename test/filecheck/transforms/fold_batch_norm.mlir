// RUN: torch-tvm-opt %s --torch-to-relax --fold-batch-norm --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[1,2,3,3],f32>) -> !torch.vtensor<[1,2,3,3],f32> {
  %int1 = torch.constant.int 1
  %int0 = torch.constant.int 0
  %0 = torch.vtensor.literal(dense_resource<c.weight> : tensor<2x2x1x1xf32>) : !torch.vtensor<[2,2,1,1],f32>
  %1 = torch.vtensor.literal(dense_resource<c.bias> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %2 = torch.vtensor.literal(dense_resource<b.weight> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %3 = torch.vtensor.literal(dense_resource<b.bias> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %4 = torch.vtensor.literal(dense_resource<b.running_mean> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %5 = torch.vtensor.literal(dense_resource<b.running_var> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %false = torch.constant.bool false
  %float1.000000e-01 = torch.constant.float 1.000000e-01
  %float1.000000e-05 = torch.constant.float 1.000000e-05
  %6 = torch.prim.ListConstruct %int1, %int1 : (!torch.int, !torch.int) -> !torch.list<int>
  %7 = torch.prim.ListConstruct %int0, %int0 : (!torch.int, !torch.int) -> !torch.list<int>
  %8 = torch.aten.conv2d %arg0, %0, %1, %6, %7, %6, %int1 : !torch.vtensor<[1,2,3,3],f32>, !torch.vtensor<[2,2,1,1],f32>, !torch.vtensor<[2],f32>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.int -> !torch.vtensor<[1,2,3,3],f32>
  %9 = torch.aten.batch_norm %8, %2, %3, %4, %5, %false, %float1.000000e-01, %float1.000000e-05, %false : !torch.vtensor<[1,2,3,3],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.bool, !torch.float, !torch.float, !torch.bool -> !torch.vtensor<[1,2,3,3],f32>
  return %9 : !torch.vtensor<[1,2,3,3],f32>
}
// CHECK-NOT: R.nn.batch_norm
// CHECK-LABEL: def main(
// CHECK: R.reshape(w1, R.shape([1, 2, 1, 1]))
// CHECK: R.add(w5, R.const(9.9999997473787516e-06, "float32"))
// CHECK: R.sqrt(lv)
// CHECK: R.divide(w2, lv1_1)
// CHECK: R.multiply(w4, lv2)
// CHECK: R.negative(lv3)
// CHECK: R.add(lv4, w3)
// CHECK: R.expand_dims(lv2, axis=[0, 2, 3])
// CHECK: R.expand_dims(lv5, axis=[0, 2, 3])
// CHECK: R.multiply(lv1, lv6)
// CHECK: R.add(lv8, lv7)
// CHECK: R.reshape(lv6, R.shape([2, 1, 1, 1]))
// CHECK: R.multiply(w0, lv10)
// CHECK: R.nn.conv2d(arg0, lv11
// CHECK: R.add(lv12, lv9)

{-#
  dialect_resources: {
    builtin: {
      c.weight: "0x100000002279ADBB9C36C23EB1FC14BF1D3805BF",
      c.bias: "0x10000000D6708BBEAB2A423E",
      b.weight: "0x100000007A83CE3EE588563F",
      b.bias: "0x10000000442138BF0B83CEBE",
      b.running_mean: "0x10000000C8D9A13F2DFB2FBF",
      b.running_var: "0x100000008AA8AC3F796BB33F"
    }
  }
#-}
