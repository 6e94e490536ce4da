"""scikit-learn estimators out of `.skops` files, to ONNX. Needs the optional extra `edgeops[sklearn]`."""

import io
import zipfile
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeops.wire.errors import Misuse, Rejected

Predict = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
OPSET = {"": 18, "ai.onnx.ml": 3}
INPUT = "input"
# Plain Python holders of numbers inside every fitted network; skops does not list them.
TRUSTED = frozenset(f"sklearn.neural_network._stochastic_optimizers.{name}Optimizer" for name in ("Adam", "SGD"))


def convert(data: bytes, name: str, limit: int, trusted: Collection[str] = ()) -> tuple[onnx.ModelProto, Predict]:
    """The ONNX model (input float32 [None, d], no zipmap) and the estimator's own `predict`; only types skops trusts are built,
    and those in `trusted`, which the caller answers for.

    Raises Misuse("missing-extra"), Rejected: not-skops, too-large, untrusted-type, not-convertible, string-labels.
    """
    estimator = _load(data, name, limit, trusted)
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int) or not hasattr(estimator, "predict"):
        raise Rejected("not-convertible", f"{name} holds no fitted estimator with predict()")
    classes = getattr(estimator, "classes_", None)
    if classes is not None and np.asarray(classes).dtype.kind not in "iub":
        raise Rejected("string-labels", f"{name} predicts {np.asarray(classes).dtype} labels; train it on integer labels")

    def predict(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(estimator.predict(x))

    return _to_onnx(estimator, width, name), predict


def _load(data: bytes, name: str, limit: int, trusted: Collection[str]) -> Any:
    try:
        import skl2onnx  # noqa: F401
        import skops.io
    except ImportError as error:
        raise Misuse("missing-extra", f"{name} needs {error.name}: pip install 'edgeops[sklearn]'") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > limit:
            raise Rejected("too-large", f"{name} unpacks to {unpacked} bytes, {limit} are allowed")
        held = skops.io.get_untrusted_types(data=data)
        untrusted = [item for item in held if item not in TRUSTED and item not in trusted]
        if untrusted:
            names = ", ".join(sorted(untrusted))[:300]
            advice = "trust each with --trust TYPE if the file is your own, or export to .onnx"
            raise Rejected("untrusted-type", f"{name} holds {names}; {advice}")
        return skops.io.loads(data, trusted=held)
    except Rejected:
        raise
    except Exception as error:  # a broken archive fails in many ways inside skops
        raise Rejected("not-skops", f"{name} cannot be read as a skops file: {str(error)[:200]}") from None


def _to_onnx(estimator: Any, width: int, name: str) -> onnx.ModelProto:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    options = {id(last): {"zipmap": False}} if hasattr(last, "classes_") else None
    try:
        kinds = [(INPUT, FloatTensorType([None, width]))]
        model: onnx.ModelProto = skl2onnx.to_onnx(estimator, initial_types=kinds, options=options, target_opset=OPSET)
    except Exception as error:  # skl2onnx raises many kinds, some with messages of 100,000 characters
        problem = f"{name}: skl2onnx cannot convert {type(last).__name__}; export it to .onnx yourself: {str(error)[:200]}"
        raise Rejected("not-convertible", problem) from None
    return model
