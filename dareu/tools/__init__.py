"""What the `dareu` command runs beside the recipes: small programs that train nothing."""
