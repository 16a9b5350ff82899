//! What refers to what: references looked up, relations judged, conditions computed.
