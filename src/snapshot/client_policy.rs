//! Settings of a listener from its ClientTrafficPolicy, other than limits.

use std::sync::Arc;

/// The settings of the ClientTrafficPolicy that applies to a listener. Its limits and timeouts are in
/// the listener's [`ClientLimits`](super::ClientLimits).
///
/// HTTP listeners of one port share their policy, so that the settings hold for the whole
/// [`Bind`](super::Bind) of a port without TLS. Over TLS each listener has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientPolicy {
    /// `namespace/name` of the policy.
    pub name: Arc<str>,
}
