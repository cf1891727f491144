"""Mathematics that knows no genetics."""
