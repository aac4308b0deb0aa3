"""One layer at a time, placed optimally given its neighbours."""
