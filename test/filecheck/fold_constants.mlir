// RUN: torch-tvm-opt %s --fold-constants | filecheck %s
// RUN: torch-tvm-opt %s --fold-constants --torch-tvm-canonicalize --torch-to-relax | filecheck %s --check-prefix=RELAX

func.func @main(%x: !torch.vtensor<[3],f32>) -> !torch.vtensor<[3],f32> {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %int3 = torch.constant.int 3
  %int6 = torch.constant.int 6
  %int1 = torch.constant.int 1
  %cpu = torch.constant.device "cpu"
  %0 = torch.aten.arange %int3, %int6, %none, %cpu, %false : !torch.int, !torch.int, !torch.none, !torch.Device, !torch.bool -> !torch.vtensor<[3],f32>
  %1 = torch.aten.add.Tensor %x, %0, %int1 : !torch.vtensor<[3],f32>, !torch.vtensor<[3],f32>, !torch.int -> !torch.vtensor<[3],f32>
  return %1 : !torch.vtensor<[3],f32>
}
// CHECK-NOT: torch.aten.arange
// CHECK:     %[[L:.*]] = torch.vtensor.literal
// CHECK:     torch.aten.add.Tensor %{{.*}}, %[[L]]
// CHECK:     "0x{{........}}000000000000803F00000040"
// RELAX:     R.add(arg0, {{.*}})
