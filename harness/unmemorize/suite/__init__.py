"""Suite files: TOML into validated, frozen models, with grids, overrides and near names in every error."""

from unmemorize.suite.load import load_suite
from unmemorize.suite.model import Suite

__all__ = ["Suite", "load_suite"]
