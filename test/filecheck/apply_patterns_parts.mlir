// RUN: torch-tvm-opt %s --apply-patterns --eliminate-dead --split-input-file | filecheck %s

// A slice has bounds that are numbers inside the dimension; narrow, chunk and tensor_split are slices and splits.
func.func @main(%x: !torch.vtensor<[3,7],f32>, %n: !torch.vtensor<[?,7],f32>) -> (!torch.vtensor<[2,7],f32>, !torch.vtensor<[2,7],f32>, !torch.vtensor<[?,7],f32>, !torch.vtensor<[3,3],f32>, !torch.vtensor<[3,5],f32>, !torch.vtensor<[3,7],f32>) {
  %none = torch.constant.none
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int2 = torch.constant.int 2
  %int3 = torch.constant.int 3
  %int-2 = torch.constant.int -2
  %0 = torch.aten.slice.Tensor %x, %int-2, %int1, %none, %int1 : !torch.vtensor<[3,7],f32>, !torch.int, !torch.int, !torch.none, !torch.int -> !torch.vtensor<[2,7],f32>
  %1 = torch.aten.narrow %x, %int0, %int-2, %int2 : !torch.vtensor<[3,7],f32>, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[2,7],f32>
  %2 = torch.aten.slice.Tensor %n, %int0, %none, %int-2, %int1 : !torch.vtensor<[?,7],f32>, !torch.int, !torch.none, !torch.int, !torch.int -> !torch.vtensor<[?,7],f32>
  %3 = torch.aten.chunk %x, %int3, %int1 : !torch.vtensor<[3,7],f32>, !torch.int, !torch.int -> !torch.list<vtensor>
  %4:3 = torch.prim.ListUnpack %3 : !torch.list<vtensor> -> !torch.vtensor<[3,3],f32>, !torch.vtensor<[3,3],f32>, !torch.vtensor<[3,1],f32>
  %5 = torch.prim.ListConstruct %int2 : (!torch.int) -> !torch.list<int>
  %6 = torch.operator "torch.aten.tensor_split.indices"(%x, %5, %int1) : (!torch.vtensor<[3,7],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %7:2 = torch.prim.ListUnpack %6 : !torch.list<vtensor> -> !torch.vtensor<[3,2],f32>, !torch.vtensor<[3,5],f32>
  %8 = torch.aten.slice.Tensor %x, %int0, %none, %none, %int1 : !torch.vtensor<[3,7],f32>, !torch.int, !torch.none, !torch.none, !torch.int -> !torch.vtensor<[3,7],f32>
  return %0, %1, %2, %4#0, %7#1, %8 : !torch.vtensor<[2,7],f32>, !torch.vtensor<[2,7],f32>, !torch.vtensor<[?,7],f32>, !torch.vtensor<[3,3],f32>, !torch.vtensor<[3,5],f32>, !torch.vtensor<[3,7],f32>
}
// CHECK-LABEL: func.func @main
// CHECK:     %[[A:.*]] = torch.aten.slice.Tensor %arg0, %int0{{(_[0-9]+)?}}, %int1{{(_[0-9]+)?}}, %int3{{(_[0-9]+)?}}, {{.*}} -> !torch.vtensor<[2,7],f32>
// CHECK:     %[[N:.*]] = torch.aten.slice.Tensor %arg0, %int0{{(_[0-9]+)?}}, %int1{{(_[0-9]+)?}}, %int3{{(_[0-9]+)?}}, {{.*}} -> !torch.vtensor<[2,7],f32>
// CHECK:     %[[U:.*]] = torch.aten.slice.Tensor %arg1, %int0{{(_[0-9]+)?}}, %int0{{(_[0-9]+)?}}, %int-2, {{.*}} -> !torch.vtensor<[?,7],f32>
// CHECK:     torch.aten.split.Tensor %arg0, %int3{{(_[0-9]+)?}}, %int1{{(_[0-9]+)?}} :
// CHECK:     %[[P:.*]] = torch.aten.slice.Tensor %arg0, %int1{{(_[0-9]+)?}}, %int0{{(_[0-9]+)?}}, %int2{{(_[0-9]+)?}}, {{.*}} -> !torch.vtensor<[3,2],f32>
// CHECK:     %[[Q:.*]] = torch.aten.slice.Tensor %arg0, %int1{{(_[0-9]+)?}}, %int2{{(_[0-9]+)?}}, %int7{{(_[0-9]+)?}}, {{.*}} -> !torch.vtensor<[3,5],f32>
// CHECK:     torch.prim.ListConstruct %[[P]], %[[Q]]
// CHECK:     return %[[A]], %[[N]], %[[U]], {{.*}}, %arg0

// -----

// The shape as a tensor: a tensor of one number for each size.
func.func @sizes(%n: !torch.vtensor<[?,7],f32>) -> !torch.vtensor<[2],si64> {
  %0 = torch.aten._shape_as_tensor %n : !torch.vtensor<[?,7],f32> -> !torch.vtensor<[2],si64>
  return %0 : !torch.vtensor<[2],si64>
}
// CHECK-LABEL: func.func @sizes
// CHECK:     %[[SIZE:.*]] = torch.aten.size.int %arg0, %int0
// CHECK:     torch.prim.NumToTensor.Scalar %[[SIZE]]
// CHECK:     torch.prim.NumToTensor.Scalar %int7
// CHECK:     torch.aten.cat
