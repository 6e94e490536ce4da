"""What travels: manifests, the byte-range walker, content-addressed objects, stream lists, assembly with limits.

Knows: how a model is cut into objects and frames and put together again. Does not know: who sent it, disk, network, the ONNX
package (the walker reads the protobuf wire format itself). Encoders of patches live in the forge.
Who may enter: the forge and the manager above it, and the agent. It imports edgeops.wire only.
"""
