"""lower, observe, solve, emit, seal, evaluate, judge: the way of every artifact."""
