"""The options of recipes, for them and for the recipes that run them."""
