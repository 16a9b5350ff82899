//! Settings of listeners from ClientTrafficPolicies.
//!
//! The defaults are those of the command line; what a policy says takes precedence. To serve another
//! field: a limit or timeout goes to `snapshot::ClientLimits` by [`limits`], any other setting to
//! `snapshot::ClientPolicy`.

use std::sync::Arc;

use crate::api::Protocol;
use crate::api::envoy::ClientTrafficPolicySpec;
use crate::graph::{ClientEffect, ClientPolicies, Listener};
use crate::snapshot::{ClientLimits, ClientPolicy, Rule};

use super::routes::refusing;

/// The settings of one listener.
#[derive(Debug)]
pub(super) struct ListenerSettings {
    pub limits: Arc<ClientLimits>,
    /// The policy that applies; `None` if none does or if it cannot be applied.
    pub policy: Option<Arc<ClientPolicy>>,
    /// True if the policy of the listener cannot be applied: HTTP requests are answered with 500,
    /// other connections are closed.
    pub closed: bool,
}

impl ListenerSettings {
    /// Returns the settings of a listener, with `defaults` for limits that its policy does not set.
    pub(super) fn of(
        policies: &ClientPolicies<'_>,
        listener: &Listener<'_>,
        defaults: &Arc<ClientLimits>,
    ) -> Self {
        let mut settings = Self { limits: Arc::clone(defaults), policy: None, closed: false };
        // No field of the kind is about datagrams.
        if listener.spec.protocol == Protocol::Udp {
            return settings;
        }
        match policies.on_listener(listener) {
            None => {}
            Some(ClientEffect::Refused) => settings.closed = true,
            Some(ClientEffect::Policy(applied)) => {
                let metadata = applied.metadata();
                let name = format!("{}/{}", metadata.namespace(), metadata.name).into();
                settings.policy = Some(Arc::new(ClientPolicy { name }));
                let limits = limits(defaults, applied.spec);
                if limits != **defaults {
                    settings.limits = Arc::new(limits);
                }
            }
        }
        settings
    }
}

/// Returns the limits of a listener with a policy.
fn limits(defaults: &ClientLimits, _policy: &ClientTrafficPolicySpec) -> ClientLimits {
    defaults.clone()
}

/// Returns the rule that runs in place of `rule` on a listener that is closed.
pub(super) fn closed_rule(rule: &Rule) -> Arc<Rule> {
    Arc::new(refusing(Arc::clone(&rule.name), Arc::clone(&rule.counts)))
}
