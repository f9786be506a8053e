"""The serving runtime: one immutable version behind the Open Inference Protocol, REST and gRPC, on MLServer.

Features are computed by the trainer's own code (``fiduciary_features``), the model runs in ONNX Runtime; there is no
torch and no pickle here. ``docs/serving-runtime.md`` is the contract.
"""
