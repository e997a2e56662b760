"""The options of recipes, for them and for the recipes that run them."""

from dareu.options.values import as_list, as_mapping

__all__ = ["as_list", "as_mapping"]
