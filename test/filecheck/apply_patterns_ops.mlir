// RUN: torch-tvm-opt %s --apply-patterns --eliminate-dead | filecheck %s

// A grid is views and broadcasts, an image without a batch is a batch of one, softmax has its result's dtype,
// memory that nobody filled is zeros, and the adjoint of real numbers is a permutation.
func.func @main(%x: !torch.vtensor<[3],f32>, %n: !torch.vtensor<[?],f32>, %image: !torch.vtensor<[4,7],f32>, %w: !torch.vtensor<[2,4,3],f32>, %h: !torch.vtensor<[2,3,4],f16>) -> (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,3],f32>, !torch.vtensor<[2,5],f32>, !torch.vtensor<[2,5],f32>, !torch.vtensor<[2,3,4],f32>, !torch.vtensor<[3],f32>, !torch.vtensor<[2,4,3],f16>) {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %str = torch.constant.str "xy"
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int2 = torch.constant.int 2
  %int3 = torch.constant.int 3
  %int6 = torch.constant.int 6
  %valid = torch.constant.str "valid"
  %0 = torch.prim.ListConstruct %x, %n : (!torch.vtensor<[3],f32>, !torch.vtensor<[?],f32>) -> !torch.list<vtensor>
  %1 = torch.aten.meshgrid.indexing %0, %str : !torch.list<vtensor>, !torch.str -> !torch.list<vtensor<[?,3],f32>>
  %2:2 = torch.prim.ListUnpack %1 : !torch.list<vtensor<[?,3],f32>> -> !torch.vtensor<[?,3],f32>, !torch.vtensor<[?,3],f32>
  %3 = torch.prim.ListConstruct %int1 : (!torch.int) -> !torch.list<int>
  %4 = torch.prim.ListConstruct %int0 : (!torch.int) -> !torch.list<int>
  %5 = torch.aten.conv1d %image, %w, %none, %3, %4, %3, %int1 : !torch.vtensor<[4,7],f32>, !torch.vtensor<[2,4,3],f32>, !torch.none, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.int -> !torch.vtensor<[2,5],f32>
  %batch = torch.aten.unsqueeze %image, %int0 : !torch.vtensor<[4,7],f32>, !torch.int -> !torch.vtensor<[1,4,7],f32>
  %6 = torch.operator "torch.aten._convolution_mode"(%batch, %w, %none, %3, %valid, %3, %int1) : (!torch.vtensor<[1,4,7],f32>, !torch.vtensor<[2,4,3],f32>, !torch.none, !torch.list<int>, !torch.str, !torch.list<int>, !torch.int) -> !torch.vtensor<[1,2,5],f32>
  %7 = torch.aten.squeeze.dim %6, %int0 : !torch.vtensor<[1,2,5],f32>, !torch.int -> !torch.vtensor<[2,5],f32>
  %8 = torch.aten.softmax.int %h, %int2, %int6 : !torch.vtensor<[2,3,4],f16>, !torch.int, !torch.int -> !torch.vtensor<[2,3,4],f32>
  %9 = torch.prim.ListConstruct %int3 : (!torch.int) -> !torch.list<int>
  %10 = torch.aten.empty.memory_format %9, %none, %none, %none, %false, %none : !torch.list<int>, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none -> !torch.vtensor<[3],f32>
  %11 = torch.operator "torch.aten.mH"(%h) : (!torch.vtensor<[2,3,4],f16>) -> !torch.vtensor<[2,4,3],f16>
  return %2#0, %2#1, %5, %7, %8, %10, %11 : !torch.vtensor<[?,3],f32>, !torch.vtensor<[?,3],f32>, !torch.vtensor<[2,5],f32>, !torch.vtensor<[2,5],f32>, !torch.vtensor<[2,3,4],f32>, !torch.vtensor<[3],f32>, !torch.vtensor<[2,4,3],f16>
}
// CHECK-LABEL: func.func @main
// CHECK:     %[[SIZE:.*]] = torch.aten.size.int %arg1
// CHECK:     %[[SIZES:.*]] = torch.prim.ListConstruct %[[SIZE]]
// CHECK:     %[[LINE:.*]] = torch.aten.view %arg0, {{.*}} -> !torch.vtensor<[1,3],f32>
// CHECK:     torch.aten.expand %[[LINE]], %[[SIZES]], {{.*}} -> !torch.vtensor<[?,3],f32>
// CHECK:     %[[COLUMN:.*]] = torch.aten.view %arg1, {{.*}} -> !torch.vtensor<[?,1],f32>
// CHECK:     torch.aten.expand %[[COLUMN]], %[[SIZES]], {{.*}} -> !torch.vtensor<[?,3],f32>
// CHECK:     %[[ONE:.*]] = torch.aten.unsqueeze %arg2
// CHECK:     %[[Y:.*]] = torch.aten.conv1d %[[ONE]], {{.*}} -> !torch.vtensor<[1,2,5],f32>
// CHECK:     torch.aten.squeeze.dim %[[Y]]
// CHECK:     torch.aten.conv1d.padding
// CHECK:     %[[WIDE:.*]] = torch.aten.to.dtype %arg4, {{.*}} -> !torch.vtensor<[2,3,4],f32>
// CHECK:     torch.aten.softmax.int %[[WIDE]], {{.*}} !torch.none -> !torch.vtensor<[2,3,4],f32>
// CHECK:     torch.aten.zeros
// CHECK-NOT: torch.aten.empty
// CHECK:     torch.aten.permute %arg4
