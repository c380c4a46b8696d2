"""What lies in a model bundle, part by part; `edge_runtime.bundle` reads and checks the whole.

    manifest        bundle.json
    label_spec      in it, one output: temperature, operating point, abstention band
    int8_record     in it, how the INT8 models were made
    gate_record     in it, what INT8 was compared with FP32 on
    golden          golden.npz: inputs with the outputs that every machine must reproduce
    onnx_safety     the ONNX files: refused where they reach outside themselves
    onnx_operators  the operators that such a file may use

`edge_runtime.signing` says who made it.
"""
