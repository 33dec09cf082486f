"""The demo: a year of real flights, replayed through the whole loop, with something to look at."""
