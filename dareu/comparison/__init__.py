"""What a comparison of methods is made of: its entries and their trials."""
