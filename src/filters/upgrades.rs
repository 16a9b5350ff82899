//! The protocols that clients of a rule may change to.

use std::fmt::{self, Display, Formatter};

use http::header::UPGRADE;
use http::{StatusCode, request};

use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};

/// Refuses changes to other protocols. Envoy Gateway's `httpUpgrade` of a BackendTrafficPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgrades {
    /// In lower case; empty if none is allowed.
    pub allowed: Box<[Box<str>]>,
    /// The policy that says so: `namespace/name`.
    pub policy: Box<str>,
}

impl Upgrades {
    pub(crate) const DENIAL: &'static Denial = &Denial {
        status: StatusCode::FORBIDDEN,
        flag: None,
        details: "upgrade_failed",
        text: "this route takes no such upgrade\n",
        grpc_status: None,
    };
}

impl Display for Upgrades {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &*self.allowed {
            [] => f.write_str("no upgrades")?,
            allowed => write!(f, "upgrades only to {}", allowed.join(", "))?,
        }
        write!(f, " (BackendTrafficPolicy {})", self.policy)
    }
}

impl HttpFilter for Upgrades {
    fn phase(&self) -> Phase {
        Phase::Upgrade
    }

    /// An `Upgrade` that the gateway does not take from any client is not in the head any more.
    fn apply(&self, _: &mut Exchange, head: &mut request::Parts) -> Verdict {
        let Some(wanted) = head.headers.get(UPGRADE) else { return Verdict::Continue(()) };
        let wanted = wanted.as_bytes();
        match self.allowed.iter().any(|of| of.as_bytes().eq_ignore_ascii_case(wanted)) {
            true => Verdict::Continue(()),
            false => Verdict::Break(Stop::Refuse(Failure::Denied(Self::DENIAL))),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::filters::testing;

    #[test]
    fn only_what_is_on_the_list_is_taken() {
        // (allowed, wanted, taken)
        let table: [(&[&str], Option<&str>, bool); 6] = [
            (&[], None, true),
            (&[], Some("websocket"), false),
            (&["websocket"], Some("WebSocket"), true),
            (&["connect"], Some("websocket"), false),
            (&["websocket", "spdy/3.1"], Some("SPDY/3.1"), true),
            (&["websocket"], Some("websocket/13"), false),
        ];
        for (allowed, wanted, taken) in table {
            let allowed = allowed.iter().map(|of| (*of).into()).collect();
            let filter = Upgrades { allowed, policy: "a/b".into() };
            let (mut exchange, mut head) = (testing::exchange("a.test"), testing::head("/"));
            if let Some(wanted) = wanted {
                head.headers.insert(UPGRADE, HeaderValue::from_str(wanted).unwrap());
            }
            let verdict = filter.apply(&mut exchange, &mut head);
            assert_eq!(verdict.is_continue(), taken, "{filter} {wanted:?}");
        }
    }
}
