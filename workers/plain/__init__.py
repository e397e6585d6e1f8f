"""Networks, preprocessing and training as ordinary PyTorch: torch, NumPy and safetensors, and nothing else of this project.

Each thing stands here once. The stack runs k lanes of these networks as one, the tests compare it with `training.train`, a
model's archive ships these files as they are, ONNX is exported from these modules, and the report's program calls them.

    network         Shape, build, initialize; the table of families: `mlp`, `cnn`, `sequence`
    layers          dropout as it is handed in, normalizations, activations, `embedding`
    training        one training run: `train`; its update is `update`, its batches are `batches`, its rates `schedules`
    preprocessing   from rows as people have them (`columns`) to what a network reads; `scaling` of numbers
    loader          an unpacked archive as a model that predicts
"""
