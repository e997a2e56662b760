"""A request to forget, from who asks to a model that can be handed over: checks, plan, ledger and card."""
