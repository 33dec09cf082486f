"""How far what a model sees and says has moved from its baseline: counted in cells that add up, then judged."""
