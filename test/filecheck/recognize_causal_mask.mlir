// RUN: torch-tvm-opt %s --recognize-causal-mask --eliminate-dead | filecheck %s

func.func @main(%q: !torch.vtensor<[1,2,3,4],f32>) -> !torch.vtensor<[1,2,3,4],f32> {
  %mask = torch.vtensor.literal(dense<[[true, false, false], [true, true, false], [true, true, true]]> : tensor<3x3xi1>) : !torch.vtensor<[3,3],i1>
  %none = torch.constant.none
  %float0 = torch.constant.float 0.0
  %false = torch.constant.bool false
  %0 = torch.aten.scaled_dot_product_attention %q, %q, %q, %mask, %float0, %false, %none, %false : !torch.vtensor<[1,2,3,4],f32>, !torch.vtensor<[1,2,3,4],f32>, !torch.vtensor<[1,2,3,4],f32>, !torch.vtensor<[3,3],i1>, !torch.float, !torch.bool, !torch.none, !torch.bool -> !torch.vtensor<[1,2,3,4],f32>
  return %0 : !torch.vtensor<[1,2,3,4],f32>
}
// CHECK-LABEL: func.func @main
// CHECK-NOT:   literal
// CHECK:       torch.constant.bool false
// CHECK-NEXT:  %[[NONE:.*]] = torch.constant.none
// CHECK-NEXT:  %[[TRUE:.*]] = torch.constant.bool true
// CHECK-NEXT:  torch.aten.scaled_dot_product_attention %arg0, %arg0, %arg0, %[[NONE]], %{{.*}}, %[[TRUE]], %none, %false :
