"""What a saved XGBoost model says about itself, read and checked before XGBoost sees it.

XGBoost ends the process (abort, segmentation fault) on many damaged files, even an empty one, because it trusts
lengths and node numbers. Here they are checked first. Layout: XGBoost's doc/model.schema.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ml.errors import ModelPayloadInvalid
from ml.models import ubj

_NODE_ARRAYS = ("left_children", "right_children", "parents", "split_indices", "split_conditions", "default_left")
_COLUMNS_OF_OBJECTIVE = {"binary:logistic": 1, "multi:softprob": None}


@dataclass(frozen=True)
class XGBoostFile:
    """`classes` is the number of score columns; `feature_names` is empty unless it was trained with names."""

    n_features: int
    classes: int
    feature_names: tuple[str, ...]


def inspect(payload: bytes) -> XGBoostFile:
    """Return what a UBJ file says about itself.

    Raises ModelPayloadInvalid when it is not a whole, consistent UBJ file of a tree model that Penstock can serve.
    Cost: about 40 µs per tree, holding the interpreter.
    """
    try:
        return _inspect(payload)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # A damaged document fails in as many ways as there are things to read in it.
        detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise ModelPayloadInvalid(
            f"this is not a whole XGBoost model in UBJ format ({detail}); save it with booster.save_model('model.ubj')"
        ) from error


def _inspect(payload: bytes) -> XGBoostFile:
    learner = ubj.parse(payload)["learner"]
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if objective not in _COLUMNS_OF_OBJECTIVE:
        known = " or ".join(_COLUMNS_OF_OBJECTIVE)
        raise ModelPayloadInvalid(f"this XGBoost model was trained with objective {objective!r}; it must be {known}")
    if booster["name"] != "gbtree":
        raise ModelPayloadInvalid(f"this XGBoost model is a {booster['name']!r} booster; it must be 'gbtree'")
    parameters = learner["learner_model_param"]
    n_features = int(parameters["num_feature"])
    classes = _COLUMNS_OF_OBJECTIVE[objective] or int(parameters["num_class"])
    _check_forest(booster["model"], n_features, classes)
    return XGBoostFile(n_features, classes, tuple(learner.get("feature_names", ())))


def _check_forest(model: dict[str, Any], n_features: int, classes: int) -> None:
    trees, group_of_tree = model["trees"], model["tree_info"]
    _require(len(trees) == int(model["gbtree_model_param"]["num_trees"]) == len(group_of_tree), "trees are missing")
    _require(all(0 <= group < classes for group in group_of_tree), "a tree belongs to no class")
    rounds = model.get("iteration_indptr", [0, len(trees)])  # files of older versions have none
    _require(rounds[0] == 0 and rounds[-1] == len(trees), "the rounds do not hold the trees")
    _require(all(start <= end for start, end in pairwise(rounds)), "the rounds are out of order")
    for tree in trees:
        _check_tree(tree, n_features)


def _check_tree(tree: dict[str, Any], n_features: int) -> None:
    """Every walk from the root must stay in the tree and end: each child is a node and has this one parent."""
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise ModelPayloadInvalid("this XGBoost model has a tree for all classes; train it with one tree for each")
    nodes = int(tree["tree_param"]["num_nodes"])
    _require(nodes > 0 and all(len(tree[name]) == nodes for name in _NODE_ARRAYS), "nodes are missing")
    left, right, parents = tree["left_children"], tree["right_children"], tree["parents"]
    inner = np.flatnonzero(left != -1)
    _require(bool((right[left == -1] == -1).all()), "a leaf has a child")
    for children in (left[inner], right[inner]):
        _require(bool(((children > 0) & (children < nodes)).all()), "a child is no node")
        _require(bool((parents[children] == inner).all()), "a child has two parents")
    features = tree["split_indices"][inner]
    _require(bool(((features >= 0) & (features < n_features)).all()), "a split is on no feature")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
