//! The representation of a backend's endpoint in the access log.

use crate::observe::Upstream;
use crate::upstream::EndpointName;

/// Returns an endpoint in the form of the log. `named` holds the text of an endpoint that is not an
/// address.
pub(crate) fn logged_endpoint<'n>(endpoint: &EndpointName, named: &'n mut String) -> Upstream<'n> {
    match endpoint.socket_addr() {
        Some(address) => Upstream::Address(address),
        None => {
            *named = endpoint.to_string();
            Upstream::Name(named)
        }
    }
}
