//! What may be written: the kinds of the Gateway API and of Envoy Gateway as plain data.
