"""The live page: what a stream's topics say, folded into one document and drawn by a browser."""
