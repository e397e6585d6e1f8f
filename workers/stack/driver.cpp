// Calls a library of AOTInductor many times in a row, for a Python thread that has released the interpreter's lock.
//
// Compiled on first use (see programs.py). It declares what it needs of torch's C interface itself, since parsing torch's
// headers would take seconds: AOTInductorModelContainerRun (torch/csrc/inductor/aoti_runtime/interface.h),
// aoti_torch_create_tensor_from_blob_v2 and aoti_torch_delete_tensor_object (torch/csrc/inductor/aoti_torch/c/shim.h).

#include <cstddef>
#include <cstdint>

extern "C" {

typedef int32_t (*CreateTensor)(void *data, int64_t ndim, const int64_t *sizes, const int64_t *strides, int64_t offset,
                                int32_t dtype, int32_t device, int32_t index, void **tensor, int32_t layout,
                                const uint8_t *metadata, int64_t metadata_size);
typedef int32_t (*DeleteTensor)(void *tensor);
typedef int32_t (*Run)(void *container, void **inputs, size_t count, void **outputs, size_t output_count, void *stream,
                       void *executor);

enum { MOST_DIMENSIONS = 8, MOST_ARGUMENTS = 256 };

struct Argument {
  char *data;
  int64_t step;  // bytes from one call's data to the next one's; 0 for an argument that all calls share
  int64_t ndim;
  int64_t sizes[MOST_DIMENSIONS];
  int64_t strides[MOST_DIMENSIONS];
  int32_t dtype;
};

// Returns 0, or the number of the call that failed, from 1.
int64_t regsearch_run(CreateTensor create, DeleteTensor drop, Run run, void *container, const Argument *arguments,
                      int64_t count, int64_t times) {
  void *tensors[MOST_ARGUMENTS];
  for (int64_t call = 0; call < times; ++call) {
    for (int64_t i = 0; i < count; ++i) {
      const Argument &each = arguments[i];
      if (create(each.data + call * each.step, each.ndim, each.sizes, each.strides, 0, each.dtype, 0, -1, &tensors[i], 0,
                 nullptr, 0))
        return call + 1;
    }
    void *output = nullptr;
    if (run(container, tensors, static_cast<size_t>(count), &output, 1, nullptr, nullptr)) return call + 1;  // it owns the tensors
    drop(output);
  }
  return 0;
}
}
