//! What a peer sends first, to the readers of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge_gateway::fuzz::parsers(bytes));
