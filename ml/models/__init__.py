"""Models behind one small protocol, found by name. `protocol` says what a model is, `registry` finds one."""
