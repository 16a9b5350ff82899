//! HTTP filters: what a rule does to a request before it is forwarded.
