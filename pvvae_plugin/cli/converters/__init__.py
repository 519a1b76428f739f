"""Commands that check datasets and write their lists."""
