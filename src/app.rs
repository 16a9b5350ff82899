//! Builds the runtimes, starts every task and stops them in order.
