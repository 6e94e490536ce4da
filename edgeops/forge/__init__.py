"""Model in, signed release out: check, convert, canonicalise, quantize, evaluate, golden vectors, reference profile, lineage, sign.

Knows: ONNX, ONNX Runtime, scikit-learn through its optional extra, and the files of a release folder. `flow.add_model` runs
the whole way; `sign.sign_release` signs any release folder, also one put together by hand. Time and seeds are values passed in;
its own I/O is reading sources and data and writing the release folder.

Does not know: fleets, MQTT, the database, the manager, HTTP, where keys are kept.

Who may enter: the local CLI and tests. The manager never does: it verifies and stores releases, it does not make them.
"""
