"""Views: keeps in Redis what the logs say, for people and services to look up (the keys: see `stores.view_keys`)."""

from agents.views.fold import Fold
from agents.views.reading import KEPT_MS
from agents.views.stage import STAGE, Views, ViewStore

__all__ = ["KEPT_MS", "STAGE", "Fold", "ViewStore", "Views"]
