//! An endpoint of a backend as the access log has it.

use crate::observe::Upstream;
use crate::upstream::EndpointName;

/// An endpoint as the log has it; `named` keeps the text of one that is no address.
pub(crate) fn logged_endpoint<'n>(endpoint: &EndpointName, named: &'n mut String) -> Upstream<'n> {
    match endpoint.socket_addr() {
        Some(address) => Upstream::Address(address),
        None => {
            *named = endpoint.to_string();
            Upstream::Name(named)
        }
    }
}
