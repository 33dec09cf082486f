"""Fitted scikit-learn estimators as bytes, by skops: no pickle, and no type that is not listed here.

A skops file is a zip of `schema.json`, a tree of nodes that each name a type and what loads it, and of NumPy arrays.
skops trusts many types; this allows what the estimators below are made of. As skops writes it, a file holds addresses
of memory and the time; here arrays are named by their content and the clock stands still, so equal models are equal
bytes. Nodes of a tree are checked, for scikit-learn follows them without looking.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn
import skops.io

from ml.errors import ModelPayloadInvalid

_FOREST = "sklearn.ensemble._forest"
_BOOSTING = "sklearn.ensemble._hist_gradient_boosting"
_TYPES = frozenset(
    {
        f"{_BOOSTING}.gradient_boosting.HistGradientBoostingClassifier",
        f"{_BOOSTING}.binning._BinMapper",
        f"{_BOOSTING}.predictor.TreePredictor",
        f"{_FOREST}.RandomForestClassifier",
        f"{_FOREST}.ExtraTreesClassifier",
        "sklearn.ensemble._gb.GradientBoostingClassifier",
        "sklearn.dummy.DummyClassifier",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._classes.ExtraTreeClassifier",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.naive_bayes.GaussianNB",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._label.LabelEncoder",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
    }
)
_TREES = frozenset({"sklearn.tree._tree.Tree"})
_CYTHON_LOSSES = frozenset({"sklearn._loss._loss.CyHalfBinomialLoss", "sklearn._loss._loss.CyHalfMultinomialLoss"})
_NUMBERS = frozenset(
    {"numpy.ndarray"}
    | {f"numpy.{name}" for name in ("bool", "uint8", "int32", "int64", "uint32", "uint64", "float32", "float64")}
)
_ALLOWED = {  # what may load a node, and what the node may be
    "ObjectNode": _TYPES,
    "TreeNode": _TREES,
    "LossNode": _CYTHON_LOSSES,
    "DictNode": frozenset({"builtins.dict"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "JsonNode": frozenset({"builtins.str"}),
    "TypeNode": frozenset({"builtins.str"}),
    "NdArrayNode": _NUMBERS,
    "DTypeNode": frozenset({"numpy.dtype"}),
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
}
_SCHEMA = "schema.json"
_VERSION = "_sklearn_version"


def write(value: Any) -> bytes:
    """Return `value`, made of estimators, lists, dicts and numbers, as bytes. Raises ModelPayloadInvalid when a type
    in it may not be loaded again. A model of 100 trees takes about 60 ms.
    """
    payload = skops.io.dumps(value)
    with zipfile.ZipFile(io.BytesIO(payload)) as written:
        schema = json.loads(written.read(_SCHEMA))
        arrays: dict[str, bytes] = {}
        for node in _nodes(schema):
            node.pop("__id__", None)
            if "file" in node:
                array = _canonical(written.read(node["file"]))
                node["file"] = f"{hashlib.sha256(array).hexdigest()[:32]}.npy"
                arrays[node["file"]] = array
    _require_allowed(schema)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as made:
        made.writestr(zipfile.ZipInfo(_SCHEMA), json.dumps(schema, separators=(",", ":")))
        for name, array in arrays.items():
            made.writestr(zipfile.ZipInfo(name), array)
    return whole.getvalue()


def read(payload: bytes) -> Any:
    """Return what was written.

    Raises ModelPayloadInvalid when the payload is damaged, names what is not allowed, was made by another release of
    scikit-learn, or holds a tree that does not hold together. A model of 100 trees takes about 70 ms.
    """
    try:
        _require_allowed(_schema_of(payload))
        return skops.io.loads(payload, trusted=sorted(_TYPES | _TREES | _CYTHON_LOSSES | {"numpy.dtype"}))
    except ModelPayloadInvalid:
        raise
    except Exception as error:  # a crafted file can make skops and scikit-learn raise anything
        raise ModelPayloadInvalid(
            f"this is not a whole scikit-learn model in skops format ({type(error).__name__}: {error})"
        ) from error


def check_trees(estimator: Any, n_features: int) -> None:
    """Raise ModelPayloadInvalid unless every walk down a tree of `estimator` stays in it and ends."""
    for boosted in getattr(estimator, "_predictors", ()):
        for predictor in boosted:
            nodes = predictor.nodes
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
            _require_walkable(inner, children, nodes["feature_idx"][inner], len(nodes), n_features)
            if nodes["is_categorical"].any():
                raise ModelPayloadInvalid("this scikit-learn model has a split by categories, which is not served")
    for member in np.ravel(np.asarray(getattr(estimator, "estimators_", [estimator]), dtype=object)):
        if (tree := getattr(member, "tree_", None)) is not None:
            inner = np.flatnonzero(tree.children_left != -1)
            children = np.stack([tree.children_left[inner], tree.children_right[inner]])
            _require_walkable(inner, children, tree.feature[inner], tree.node_count, n_features)


def _canonical(array: bytes) -> bytes:
    """Return a NumPy file without what was left in memory: between the fields of nodes, and in leaves."""
    found = np.load(io.BytesIO(array), allow_pickle=False)
    if found.dtype.names is None:
        return array
    clean = np.zeros(found.shape, found.dtype)  # not zeros_like, which leaves what lies between the fields
    for name in found.dtype.names:
        clean[name] = found[name]
    if "missing_go_to_left" in found.dtype.names and "left_child" in found.dtype.names:
        clean["missing_go_to_left"][clean["left_child"] == -1] = 0
    whole = io.BytesIO()
    np.save(whole, clean, allow_pickle=False)
    return whole.getvalue()


def _require_walkable(inner: Any, children: Any, features: Any, nodes: int, n_features: int) -> None:
    """scikit-learn numbers a child higher than its parent, so a walk that only goes up ends."""
    whole = nodes > 0 and (children > inner).all() and (children < nodes).all()
    if not whole or not ((features >= 0) & (features < n_features)).all():
        raise ModelPayloadInvalid("this scikit-learn model has a tree whose nodes do not hold together")


def _schema_of(payload: bytes) -> Any:
    """Return the tree of nodes of a file that is nothing but stored files, each whole by its checksum."""
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        entries = archive.infolist()
        end = archive.start_dir + sum(46 + len(entry.filename.encode()) for entry in entries) + 22
        plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not plain or sum(entry.file_size for entry in entries) > len(payload) or end != len(payload):
            raise ModelPayloadInvalid("this scikit-learn model was not written by Penstock: its zip is of another kind")
        if archive.testzip() is not None:
            raise ModelPayloadInvalid("this scikit-learn model is damaged: a checksum is wrong")
        return json.loads(archive.read(_SCHEMA))


def _require_allowed(schema: Any) -> None:
    for node in _nodes(schema):
        kind = f"{node['__module__']}.{node['__class__']}"
        if kind not in _ALLOWED.get(node["__loader__"], ()):
            raise ModelPayloadInvalid(
                f"this scikit-learn model holds a {kind} ({node['__loader__']}), which is not on the list of allowed "
                "types"
            )
        if isinstance(held := node.get("content"), dict) and _VERSION in held:
            _require_version(json.loads(held[_VERSION]["content"]))


def _require_version(version: str) -> None:
    """Between releases scikit-learn promises neither that a model opens nor that it scores the same."""
    if version.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        raise ModelPayloadInvalid(
            f"this model was made by scikit-learn {version}, and {sklearn.__version__} is installed; train it anew, or "
            "install that release"
        )


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every node below `schema`, and itself."""
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if "__loader__" in found:
                yield found
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
