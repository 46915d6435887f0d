/* As run.cc, in C, with the header that the export wrote: run_c ./digits.so digits.params < images. */
#include <stdio.h>

#include "digits.h"

int main(int count, char **args) {
  float image[64];
  int64_t shape[] = {1, 1, 8, 8};
  DLTensor input = {image, {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, shape, NULL, 0};
  DLTensor *inputs[] = {&input};
  digits_model model;
  if (count != 3 || digits_load(&model, args[1], args[2])) {
    fprintf(stderr, "cannot load: %s\n", digits_error());
    return 1;
  }
  while (fread(image, sizeof(float), 64, stdin) == 64) {
    if (digits_run(&model, inputs)) {
      fprintf(stderr, "cannot run: %s\n", digits_error());
      return 1;
    }
    const float *logits = (const float *)model.outputs[0]->data;
    int best = 0;
    for (int digit = 1; digit < 10; ++digit)
      if (logits[digit] > logits[best]) best = digit;
    printf("%d\n", best);
  }
  digits_free(&model);
  return 0;
}
