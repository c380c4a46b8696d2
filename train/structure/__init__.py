"""Where field, vessels, disc and macula lie in a CFP, without learned weights, and what uses it."""
