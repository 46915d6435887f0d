// Runs an exported model: run_cpp digits.so digits.params < images, as raw float32, 64 a picture; prints digits.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <iostream>
#include <vector>

namespace ffi = tvm::ffi;

int main(int, char** argv) {
  // The library is a program of TVM's virtual machine; one runs it in one thread.
  ffi::Module library = ffi::Module::LoadFromFile(argv[1]);
  ffi::Module vm = library->GetFunction("vm_load_executable", true).value()().cast<ffi::Module>();
  vm->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, 2);
  ffi::Function run = vm->GetFunction("main").value();

  // The weights, in the order of their names.
  ffi::Function load = ffi::Function::GetGlobalRequired("runtime.LoadParamsFromFile");
  auto named = load(ffi::String(argv[2])).cast<ffi::Map<ffi::String, ffi::Tensor>>();
  std::vector<std::string> names;
  for (const auto& item : named) names.emplace_back(item.first);
  std::sort(names.begin(), names.end());
  ffi::Array<ffi::Tensor> weights;
  for (const auto& name : names) weights.push_back(named[name]);

  std::vector<float> image(64);
  int64_t shape[] = {1, 1, 8, 8};
  DLTensor input{image.data(), {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, shape, nullptr, 0};
  while (std::cin.read(reinterpret_cast<char*>(image.data()), 64 * sizeof(float))) {
    ffi::Tensor logits = run(&input, weights).cast<ffi::Tensor>();
    const float* values = static_cast<const float*>(logits.data_ptr());
    std::cout << std::max_element(values, values + 10) - values << "\n";
  }
}
